"""A node's metrics, as a value that can be watched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from raftbed.nodes.raft.messages import MembershipConfig, NodeId
from raftbed.nodes.raft.state import State


@dataclass(frozen=True, slots=True)
class RaftMetrics:
    """What a node is and knows, at one moment.

    Attributes:
        id: of the node.
        state: what it is.
        current_term: the latest term that it has seen.
        last_log_index: its last entry.
        commit_index: what it knows to be committed.
        last_applied: what its state machine has seen.
        current_leader: good for routing, never proof against a stale read.
        membership_config: in force.
    """

    id: NodeId
    state: State
    current_term: int = 0
    last_log_index: int = 0
    commit_index: int = 0
    last_applied: int = 0
    current_leader: NodeId | None = None
    membership_config: MembershipConfig = field(default_factory=lambda: MembershipConfig(()))


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
