"""An asyncio event loop in virtual time: one process of a simulated machine, stepped by the timeline's events.

It implements `asyncio.AbstractEventLoop` as far as nodes and clients need it, and names what it does not have. Where
order could depend on the addresses of objects (a set of futures, say), it does not: futures and tasks hash by number.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from raftbed.model import SECOND
from raftbed.sim.clock import NodeClock
from raftbed.sim.timeline import Timeline

if TYPE_CHECKING:
    _EventLoop = Any  # to the type checker every method of the real one is abstract, also what nobody calls here
else:
    _EventLoop = asyncio.AbstractEventLoop

_ITERATION = (2_000, 20_000)  # nanoseconds until what is ready is run: a processor is not endlessly fast
_HICCUP = (0.001, 4_000_000)  # share of iterations that the scheduler holds up, and for how long at most
_NEVER = 1 << 62
_ENDINGS = 20  # a coroutine may wait so often while it comes to its end


class Deadlock(Exception):
    """Nothing will ever happen any more, or not in time; names what waits."""


class Connector(Protocol):
    """The network, as a loop needs it."""

    async def connect(self, loop: VirtualLoop, address: str, factory: Callable[[], asyncio.Protocol]) -> Any:
        """Connect to "name:port"; a transport and its protocol.

        Raises:
            OSError: there is no connection.
        """
        ...

    def listen(self, loop: VirtualLoop, factory: Callable[[], asyncio.Protocol], port: int) -> asyncio.AbstractServer:
        """Take connections."""
        ...


class _Future(asyncio.Future[Any]):
    """A future that hashes by its number."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._number = number

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[Any]):
    """A task that hashes by its number."""

    def __init__(
        self, number: int, coroutine: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop, **options: Any
    ) -> None:
        self._number = number  # it is put into a set while it is made
        super().__init__(coroutine, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(_EventLoop):  # type: ignore[misc]  # see there
    """The event loop of one process.

    Parameters:
        timeline: virtual time.
        place: the name of the machine that it runs on.
        clock: the machine's.
        random: drawn from for how long things take.
        network: that the machine is connected to, if it is.
        failed: takes what asyncio would log: a context of `call_exception_handler`.

    Attributes:
        gone: the process has ended, or was killed: nothing of it will run any more.
    """

    def __init__(
        self,
        timeline: Timeline,
        place: str,
        clock: NodeClock,
        random: Random,
        *,
        network: Connector | None = None,
        failed: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.timeline = timeline
        self.place = place
        self.gone = False
        self._clock = clock
        self._draw = random.random
        self._network = network
        self._failed = failed
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[int, int, asyncio.TimerHandle]] = []
        self._many = 64  # timers: then those that were cancelled are thrown out
        self._numbers = itertools.count()
        self._is_due = False  # a step
        self._steps = False
        self._paused = False
        self._wake_at = _NEVER
        self._signals: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self._kept: list[asyncio.Task[Any]] = []

    # -- the process --------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """SIGSTOP: nothing runs."""
        self._paused = True

    def resume(self) -> None:
        """SIGCONT: what is ready or due by now runs."""
        self._paused = False
        self._wake_at = _NEVER
        self._wake_up()

    def retire(self) -> None:
        """The process is gone. What it left is held on to: no `finally` runs in a process that was killed."""
        self.gone = True
        self._kept += asyncio.all_tasks(self)

    def dispose(self) -> None:
        """Let go of everything, once nobody looks any more: unlike a process, Python has every `finally` run."""
        self.retire()
        for task in self._kept:
            for _ in range(_ENDINGS):
                try:
                    task.get_coro().close()
                    break
                except Exception:  # noqa: S112  # it would not end yet, or breaks on a world that is gone
                    continue
        self._kept.clear()
        self._ready.clear()
        self._timers.clear()

    def raise_signal(self, number: int) -> bool:
        """Send the process a signal; False when it does not handle it, or not yet."""
        if number not in self._signals:
            return False
        callback, arguments = self._signals[number]
        self.call_soon(callback, *arguments)
        return True

    def clock_changed(self) -> None:
        """The clock was set or its speed changed: timers are set anew."""
        self._wake_at = _NEVER
        self._arm()

    def waiting(self) -> list[str]:
        """What has not come to its end, in the order in which it began."""
        tasks: list[Any] = sorted(asyncio.all_tasks(self), key=hash)
        return [f"{task.get_name()} in {task.get_coro().__qualname__}" for task in tasks]

    # -- stepping -----------------------------------------------------------------------------------------------------

    def _wake_up(self) -> None:
        if self._is_due or self._steps or self._paused or self.gone:
            return
        self._is_due = True
        least, most = _ITERATION
        delay = least + int(self._draw() * (most - least))
        if self._draw() < _HICCUP[0]:
            delay += int(self._draw() * _HICCUP[1])
        self.timeline.after(delay, self._step)

    def _step(self) -> None:
        self._is_due = False
        if self._paused or self.gone:
            return
        now, timers, ready = self._clock.read(self.timeline.now), self._timers, self._ready
        while timers and timers[0][0] <= now:
            ready.append(heapq.heappop(timers)[2])
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        self._steps = True
        try:
            for _ in range(len(ready)):
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()
        finally:
            self._steps = False
            asyncio._set_running_loop(before)
        if ready:
            self._wake_up()
        else:
            self._arm()

    def _arm(self) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        if not timers or self._paused or self.gone or self._is_due or self._steps:
            return
        time = max(self._clock.when(timers[0][0]), self.timeline.now)
        if time < self._wake_at:
            self._wake_at = time
            self.timeline.at(time, self._wake, time)

    def _wake(self, time: int) -> None:
        if time == self._wake_at:  # else it was set anew meanwhile
            self._wake_at = _NEVER
            self._wake_up()

    def run_until_complete(self, future: Any, *, limit: float = 1000.0) -> Any:
        """Let time go by until `future`, a coroutine or a future, is done; returns what it brings.

        Parameters:
            future: a coroutine, or a future of this loop.
            limit: virtual seconds that it may take.

        Raises:
            Deadlock: it never will be, or not within `limit`.
        """
        task = self.create_task(future) if asyncio.iscoroutine(future) else future
        if not self.timeline.run(task.done, limit=self.timeline.now + int(limit * SECOND)):
            raise Deadlock(f"{self.place}: nothing will happen that these wait for: {', '.join(self.waiting())}.")
        return task.result()

    # -- asyncio.AbstractEventLoop: callbacks -------------------------------------------------------------------------

    def time(self) -> float:
        """Seconds, on the machine's clock."""
        return self._clock.read(self.timeline.now) / SECOND

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        """See `asyncio`."""
        handle = asyncio.Handle(callback, args, self, context)
        if not self.gone:
            self._ready.append(handle)
            self._wake_up()
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """See `asyncio`; there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio`."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See `asyncio`."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.gone:
            if len(self._timers) > self._many:
                self._timers = [timer for timer in self._timers if not timer[2].cancelled()]
                heapq.heapify(self._timers)
                self._many = 64 + 2 * len(self._timers)
            heapq.heappush(self._timers, (math.ceil(when * SECOND), next(self._numbers), handle))
            self._arm()
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """What asyncio tells a loop; cancelled timers are thrown out when there are many."""

    def create_future(self) -> asyncio.Future[Any]:
        """See `asyncio`."""
        return _Future(next(self._numbers), self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """See `asyncio`."""
        return _Task(next(self._numbers), coro, self, **options)

    # -- the network --------------------------------------------------------------------------------------------------

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """See `asyncio`; `host` is the name of a machine."""
        assert self._network is not None, "this loop has no network"
        return await self._network.connect(self, f"{host}:{port}", protocol_factory)

    async def create_unix_connection(self, protocol_factory: Any, path: str | None = None, **_: Any) -> Any:
        """The same, for who knows one address only, "name:port"."""
        assert self._network is not None, "this loop has no network"
        return await self._network.connect(self, str(path), protocol_factory)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        """See `asyncio`."""
        assert self._network is not None, "this loop has no network"
        return self._network.listen(self, protocol_factory, port)

    # -- the rest -----------------------------------------------------------------------------------------------------

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """See `asyncio`."""
        self._signals[sig] = (callback, args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """See `asyncio`; a process that is gone complains no more."""
        if not self.gone and self._failed is not None:
            self._failed(context)

    def get_debug(self) -> bool:
        """See `asyncio`."""
        return False

    def is_running(self) -> bool:
        """See `asyncio`."""
        return self._steps

    def is_closed(self) -> bool:
        """See `asyncio`."""
        return self.gone

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:
        """There are no threads in virtual time."""
        raise Deadlock(f"{self.place}: {func!r} was to run in a thread; let it come in through a seam.")
