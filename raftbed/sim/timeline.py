"""Virtual time: a heap of events, and coroutines that sleep on it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from raftbed.model import SECOND

Resume = Callable[[Any], None]
"""Goes on with a coroutine that waits; the argument is what its `await` gives."""


class Timeline:
    """Events in the order of their times; those of one moment in the order in which they were asked for.

    Attributes:
        now: nanoseconds since the beginning of the simulation.
        executed: how many events there were so far.
    """

    __slots__ = ("_heap", "_order", "executed", "now")

    def __init__(self) -> None:
        self.now = 0
        self.executed = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def at(self, time: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` at `time`, in nanoseconds; a time that is over means now."""
        self._order += 1
        heapq.heappush(self._heap, (time if time > self.now else self.now, self._order, action, arguments))

    def after(self, delay: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` in `delay` nanoseconds."""
        self._order += 1
        heapq.heappush(self._heap, (self.now + delay, self._order, action, arguments))

    def run(self, over: Callable[[], bool], *, limit: int) -> bool:
        """Let time go by until `over()` holds, or until `limit` nanoseconds; True when it was not the limit."""
        heap, pop = self._heap, heapq.heappop
        while not over():
            if not heap or heap[0][0] > limit:
                return False
            self.now, _, action, arguments = pop(heap)
            self.executed += 1
            action(*arguments)
        return True

    async def sleep(self, seconds: float) -> None:
        """Wait; at least until the other events of this moment have happened."""
        delay = max(0, round(seconds * SECOND))
        await Suspend(lambda resume: self.after(delay, resume, None))


class Suspend:
    """What a coroutine awaits to hand over to the heap.

    Parameters:
        begin: is given the way to go on, and sees to it that it is called once.
    """

    __slots__ = ("begin",)

    def __init__(self, begin: Callable[[Resume], None]) -> None:
        self.begin = begin

    def __await__(self) -> Generator[Suspend, Any, Any]:
        return (yield self)


class Task:
    """A coroutine that runs on the heap; it may await nothing but `Suspend`. It starts at once.

    Attributes:
        done: it has come to its end.
    """

    __slots__ = ("_coroutine", "_then", "done")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], then: Callable[[], None] | None = None) -> None:
        self._coroutine = coroutine
        self._then = then
        self.done = False
        self._resume(None)

    def _resume(self, value: Any) -> None:
        try:
            waiting: Suspend = self._coroutine.send(value)
        except StopIteration:
            self.done = True
            if self._then is not None:
                self._then()
            return
        waiting.begin(self._resume)


async def all_of(coroutines: list[Coroutine[Any, Any, Any]]) -> None:
    """Run coroutines side by side, and wait for all."""
    left = len(coroutines)
    waiter: list[Resume] = []

    def one_ended() -> None:
        nonlocal left
        left -= 1
        if not left and waiter:
            waiter[0](None)

    for coroutine in coroutines:
        Task(coroutine, one_ended)
    if left:
        await Suspend(waiter.append)
