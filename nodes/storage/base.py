"""What stores have in common: the state they recover, and the ways in which they fail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from raftbed.nodes.raft.messages import Entry, HardState


@dataclass(frozen=True, slots=True)
class InitialState:
    """What a store holds when a node starts.

    Attributes:
        hard_state: term and vote.
        entries: the log, without gaps from index 1.
    """

    hard_state: HardState
    entries: tuple[Entry, ...]


class LogStore(Protocol):
    """Keeps term, vote and log. One call at a time; each may block.

    Snapshots and compaction will add `save_snapshot`, `current_snapshot` and `compact_to` here.
    """

    def get_initial_state(self) -> InitialState:
        """Recover, and say what there is. Called first, once.

        Raises:
            StorageError: what is there cannot be trusted.
        """
        ...

    def persist(self, hard_state: HardState | None, truncate_from: int | None, entries: Sequence[Entry]) -> None:
        """Save the hard state, forget entries from `truncate_from` on, append `entries`; durable on return.

        The duties save_hard_state, delete_logs_from, append_entry_to_log and replicate_to_log of async-raft's
        RaftStorage, in one write and one sync. After a failure the store refuses everything: nobody knows what is on
        disk, and the answer to a second fsync would be a lie.

        Raises:
            StorageError: it may not be durable.
        """
        ...

    def get_log_entries(self, start: int, stop: int) -> tuple[Entry, ...]:
        """The entries start <= index < stop."""
        ...

    def close(self) -> None:
        """Let go of all resources. Idempotent."""
        ...


class StorageError(Exception):
    """A store failed, or found something that it cannot trust; the message names the file."""


class CorruptRecord(StorageError):
    """A record on disk is not what was written there."""
