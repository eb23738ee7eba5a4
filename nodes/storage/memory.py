"""A store that forgets everything with its process: for tests and simulations."""

from __future__ import annotations

from collections.abc import Sequence

from raftbed.nodes.raft.messages import Entry, HardState
from raftbed.nodes.storage.base import InitialState


class MemoryStore:
    """Implements :class:`raftbed.nodes.storage.base.LogStore` in memory.

    It outlives the node that uses it, so that a test can restart a node on it; closing it changes nothing.
    """

    def __init__(self) -> None:
        self._hard_state = HardState()
        self._entries: list[Entry] = []

    def get_initial_state(self) -> InitialState:
        """See `LogStore`."""
        return InitialState(self._hard_state, tuple(self._entries))

    def persist(self, hard_state: HardState | None, truncate_from: int | None, entries: Sequence[Entry]) -> None:
        """See `LogStore`."""
        if hard_state is not None:
            self._hard_state = hard_state
        if truncate_from is not None:
            del self._entries[truncate_from - 1 :]
        self._entries.extend(entries)

    def get_log_entries(self, start: int, stop: int) -> tuple[Entry, ...]:
        """See `LogStore`."""
        return tuple(self._entries[start - 1 : stop - 1])

    def close(self) -> None:
        """See `LogStore`."""
