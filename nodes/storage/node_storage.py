"""A log store and a state machine together are what a `Raft` calls its storage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from raftbed.nodes.raft.messages import Entry, HardState, Normal
from raftbed.nodes.storage.base import InitialState, LogStore


class StateMachine(Protocol):
    """Takes committed commands, one after the other."""

    def apply(self, command: Mapping[str, Any]) -> Any:
        """Do one command and answer it. Must be deterministic."""
        ...


class NodeStorage:
    """Implements :class:`raftbed.nodes.raft.RaftStorage`.

    Parameters:
        log: keeps term, vote and log.
        machine: is applied the commands of `Normal` entries.
    """

    def __init__(self, log: LogStore, machine: StateMachine) -> None:
        self._log = log
        self._machine = machine

    def get_initial_state(self) -> InitialState:
        """See `RaftStorage`."""
        return self._log.get_initial_state()

    def persist(self, hard_state: HardState | None, truncate_from: int | None, entries: Sequence[Entry]) -> None:
        """See `RaftStorage`."""
        self._log.persist(hard_state, truncate_from, entries)

    def apply_to_state_machine(self, entries: Sequence[Entry]) -> Sequence[Any]:
        """See `RaftStorage`."""
        apply = self._machine.apply
        return [apply(entry.payload.data) if isinstance(entry.payload, Normal) else None for entry in entries]

    def close(self) -> None:
        """See `RaftStorage`."""
        self._log.close()
