"""The storage's threads in virtual time: queues of calls, each of which takes its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any, Protocol

from raftbed.nodes.raft.storage_thread import Done
from raftbed.sim.disk import sync_time
from raftbed.sim.shell.loop import VirtualLoop

Time = tuple[int, int]
"""Least and most nanoseconds."""

_SNAPSHOT: Time = (2_000_000, 30_000_000)
_PIECE: Time = (200_000, 2_000_000)
_NO_SYNC: Time = (5_000, 50_000)


class Process(Protocol):
    """Whose disk it is."""

    def begins_write(self) -> None:
        """What is written from here on may come to any point if the process is killed."""
        ...

    def ends_write(self, *, failed: bool, synced: bool) -> None:
        """A call of the log has ended; what it asked to be synced is, unless it failed."""
        ...

    def ends_snapshot_work(self, *, failed: bool) -> None:
        """The same of a call of the snapshots."""
        ...

    def syncs(self) -> int:
        """That were asked for so far."""
        ...

    def slowness(self) -> float | None:
        """How many times as long a sync takes, on a slow disk."""
        ...


class SimulatedWorker:
    """Implements :class:`raftbed.nodes.raft.storage_thread.StorageWorker`.

    A call of the log happens when it begins, and is synced when it ends: between the two a crash may tear it. One of
    the snapshots happens when it ends: a crash before that leaves nothing of it.

    Parameters:
        process: whose.
        loop: of the process.
        random: drawn from for how long calls take.
        is_log: the log's thread, not the one of the snapshots.
    """

    def __init__(self, process: Process, loop: VirtualLoop, random: Random, *, is_log: bool) -> None:
        self._process = process
        self._loop = loop
        self._random = random
        self._is_log = is_log
        self._calls: deque[tuple[Callable[..., Any], tuple[Any, ...], Done]] = deque()
        self._paused = False
        self.busy = False

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        """See `StorageWorker`."""
        self._calls.append((function, arguments, done))
        self._next()

    def end(self) -> None:
        """See `StorageWorker`."""

    def pause(self) -> None:
        """The process stands still: it makes no calls; one under way goes on in the kernel."""
        self._paused = True

    def resume(self) -> None:
        """It does again."""
        self._paused = False
        self._next()

    def _next(self) -> None:
        if self.busy or self._paused or not self._calls or self._loop.gone:
            return
        self.busy = True
        function, arguments, done = self._calls.popleft()
        if self._is_log:
            self._process.begins_write()
            before = self._process.syncs()
            result, error = _outcome(function, arguments)
            synced = error is None and self._process.syncs() > before
            time = self._random.randint(*_NO_SYNC)
            if synced:
                time = sync_time(self._random, self._process.slowness())
            self._loop.timeline.after(time, self._written, done, result, error, synced)
        else:
            kind = getattr(function, "__name__", "")
            span = _SNAPSHOT if kind == "write_snapshot" else _PIECE if "snapshot" in kind else _NO_SYNC
            self._loop.timeline.after(self._random.randint(*span), self._happens, function, arguments, done)

    def _happens(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        if not self._loop.gone:
            result, error = _outcome(function, arguments)
            self._process.ends_snapshot_work(failed=error is not None)
            self._ended(done, result, error)

    def _written(self, done: Done, result: Any, error: Exception | None, synced: bool) -> None:
        if not self._loop.gone:
            self._process.ends_write(failed=error is not None, synced=synced)
            self._ended(done, result, error)

    def _ended(self, done: Done, result: Any, error: Exception | None) -> None:
        self.busy = False
        self._loop.call_soon_threadsafe(done, result, error)
        self._next()


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return function(*arguments), None
    except Exception as error:  # as the thread does: the caller is told
        return None, error
