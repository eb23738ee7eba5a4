"""A node's metrics, as a value that can be watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftbed.nodes.raft.state import RaftMetrics


class MetricsWatch:
    """The current metrics, and a way to wait for the next ones."""

    def __init__(self, initial: RaftMetrics) -> None:
        self._current = initial
        self._change = asyncio.Event()

    @property
    def current(self) -> RaftMetrics:
        """As of now."""
        return self._current

    def publish(self, metrics: RaftMetrics) -> None:
        """Replace the current metrics and wake who waits, if anything changed."""
        if metrics != self._current:
            self._current = metrics
            self._change.set()
            self._change = asyncio.Event()

    async def changed(self) -> RaftMetrics:
        """Wait for a change and return the metrics then."""
        await self._change.wait()
        return self._current

    async def wait_for(self, condition: Callable[[RaftMetrics], bool]) -> RaftMetrics:
        """Wait until `condition` holds of the metrics, which may be at once."""
        while not condition(self._current):
            await self.changed()
        return self._current
