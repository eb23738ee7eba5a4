"""Virtual time: a heap of events, and coroutines that sleep on it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from heapq import heappop, heappush
from typing import Any

from raftbed.model import SECOND

_ANY_NUMBER = 1 << 62
Resume = Callable[[Any], None]
"""Goes on with a coroutine that waits; the argument is what its `await` gives."""


class Timeline:
    """Events in the order of their times; those of one moment in the order in which they were asked for.

    Attributes:
        now: nanoseconds since the beginning of the simulation.
        executed: how many events there were so far.
        most: how many there may be; may change while time goes by.
    """

    __slots__ = ("_ended", "_heap", "_order", "executed", "most", "now")

    def __init__(self) -> None:
        self.now = 0
        self.executed = 0
        self.most = _ANY_NUMBER
        self._ended = False
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def at(self, time: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` at `time`, in nanoseconds; a time that is over means now."""
        self._order += 1
        heappush(self._heap, (time if time > self.now else self.now, self._order, action, arguments))

    def after(self, delay: int, action: Callable[..., None], *arguments: Any) -> None:
        """Call `action` in `delay` nanoseconds."""
        self._order += 1
        heappush(self._heap, (self.now + delay, self._order, action, arguments))

    def after_with(self, delay: int, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """`after` for those who have the arguments in a tuple."""
        self._order += 1
        heappush(self._heap, (self.now + delay, self._order, action, arguments))

    def run(self, over: Callable[[], bool] | None = None, *, limit: int) -> bool:
        """Let time go by until `over()` holds or `end` was called, for `most` events, or until `limit` nanoseconds.

        `over` is asked before each event, which takes its time: whoever can call `end` need not give it.

        Returns:
            False when it was the limit, or when there is nothing more to come.
        """
        heap, pop = self._heap, heappop
        while not self._ended and self.executed < self.most and (over is None or not over()):
            if not heap or heap[0][0] > limit:
                return False
            self.now, _, action, arguments = pop(heap)
            self.executed += 1
            action(*arguments)
        return True

    def end(self) -> None:
        """Let no time go by any more: `run` ends after the event that is under way."""
        self._ended = True

    def sleep(self, seconds: float) -> Wait:
        """Await this to wait; at least until the other events of this moment have happened."""
        return _Sleep(self, max(0, round(seconds * SECOND)))


class Wait:
    """What a coroutine awaits to hand over to the heap."""

    __slots__ = ()

    def begin(self, resume: Resume) -> None:
        """The coroutine waits: see to it that `resume` is called once."""
        raise NotImplementedError

    def __await__(self) -> Generator[Wait, Any, Any]:
        return (yield self)


class Suspend(Wait):
    """Hands over by calling a function.

    Parameters:
        begin: is given the way to go on, and sees to it that it is called once.
    """

    __slots__ = ("_begin",)

    def __init__(self, begin: Callable[[Resume], None]) -> None:
        self._begin = begin

    def begin(self, resume: Resume) -> None:
        """See `Wait`."""
        self._begin(resume)


class _Sleep(Wait):
    __slots__ = ("_delay", "_timeline")

    def __init__(self, timeline: Timeline, delay: int) -> None:
        self._timeline = timeline
        self._delay = delay

    def begin(self, resume: Resume) -> None:
        self._timeline.after(self._delay, resume, None)


class Task:
    """A coroutine that runs on the heap; it may await nothing but a `Wait`. It starts at once.

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
            waiting: Wait = self._coroutine.send(value)
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
