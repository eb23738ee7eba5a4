"""A node's metrics as its application sees them: to look at, or to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftbed.nodes.raft.errors import ShuttingDown
from raftbed.nodes.raft.state import RaftMetrics


class MetricsWatch:
    """The current metrics, and a way to wait for the next ones."""

    def __init__(self, initial: RaftMetrics) -> None:
        self._current = initial
        self._look: Callable[[], RaftMetrics] | None = None  # gives newer ones than `_current`
        self._change: asyncio.Event | None = None  # exists while someone waits
        self._closed = False
        self._failure: Exception | None = None

    @property
    def current(self) -> RaftMetrics:
        """As of now."""
        if self._look is not None:
            self._current = self._look()
            self._look = None
        return self._current

    def refresh(self, look: Callable[[], RaftMetrics]) -> None:
        """The metrics may have changed. `look` is only asked for them if someone wants to know: turns are many."""
        if self._change is None:
            self._look = look
        else:
            self.publish(look())

    def publish(self, metrics: RaftMetrics) -> None:
        """Replace the current metrics and wake who waits, if anything changed."""
        self._look = None
        if self._change is not None and metrics != self._current:
            self._change.set()
            self._change = None
        self._current = metrics

    def close(self, failure: Exception | None) -> None:
        """Nothing will change any more, because of `failure`, if it was one."""
        self._closed, self._failure = True, failure

    async def changed(self) -> RaftMetrics:
        """Wait for a change and return the metrics then.

        Raises:
            ShuttingDown: the node has shut down: there will be none.
        """
        if self._closed:
            raise ShuttingDown from self._failure
        if self._change is None:
            _ = self.current  # what there is now is no change
            self._change = asyncio.Event()
        await self._change.wait()
        return self.current

    async def wait_for(self, condition: Callable[[RaftMetrics], object]) -> RaftMetrics:
        """Wait until `condition` holds of the metrics, that is, gives something true; which may be at once.

        Raises:
            ShuttingDown: the node has shut down, and it does not hold.
            Exception: whatever `condition` raised.
        """
        while not condition(self.current):
            await self.changed()
        return self.current
