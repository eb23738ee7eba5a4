"""What stores have in common: the state they recover, and the ways in which they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from raftbed.nodes.raft.errors import RaftStorageError
from raftbed.nodes.raft.interfaces import ReceivedChunk
from raftbed.nodes.raft.messages import BEGINNING, Entry, HardState, LogBase, SnapshotMeta


@dataclass(frozen=True, slots=True)
class InitialState:
    """What a store holds when a node starts.

    Attributes:
        hard_state: term and vote.
        entries: the log, without gaps.
        base: what they follow.
        snapshot: includes everything up to `base`, or more.
    """

    hard_state: HardState
    entries: tuple[Entry, ...]
    base: LogBase = BEGINNING
    snapshot: SnapshotMeta | None = None


class LogStore(Protocol):
    """Keeps term, vote and log. One call at a time, but for `remove_obsolete`, which may run beside the others; each
    may block."""

    def get_initial_state(self) -> InitialState:
        """Recover, and say what there is. Called first, once.

        Raises:
            StorageError: what is there cannot be trusted.
        """
        ...

    def persist(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
        *,
        compact_to: LogBase | None = None,
    ) -> None:
        """Save the hard state, forget entries from `truncate_from` on, append `entries`; durable on return.

        With `compact_to`, before appending, the log forgets what is up to there, and begins after it.

        The duties save_hard_state, delete_logs_from, append_entry_to_log and replicate_to_log of async-raft's
        RaftStorage, in one write and one sync. After a failure the store refuses everything: nobody knows what is on
        disk, and the answer to a second fsync would be a lie.

        Raises:
            StorageError: it may not be durable.
        """
        ...

    def remove_obsolete(self) -> None:
        """Give back the room of what the log forgot. May be called in another thread, and late, or never: then at the
        next start.

        Raises:
            StorageError: something could not be removed; the next call tries again.
        """
        ...

    def get_log_entries(self, start: int, stop: int) -> tuple[Entry, ...]:
        """The entries start <= index < stop."""
        ...

    def close(self) -> None:
        """Let go of all resources. Idempotent."""
        ...


class SnapshotStore(Protocol):
    """Keeps one snapshot: pieces of bytes, as the state machine made them.

    `install`, `discard_older` and `current` are called like a log store's methods, the others beside them in a thread
    of their own. Each may block, and raise StorageError.
    """

    def open(self) -> SnapshotMeta | None:
        """Verify and say which snapshot there is. Called first, once; forgets what is unfinished."""
        ...

    def pieces(self) -> Iterator[bytes]:
        """The pieces of the snapshot that there is."""
        ...

    def write(
        self, snapshot: SnapshotMeta, pieces: Iterable[bytes], cancelled: Callable[[], bool]
    ) -> SnapshotMeta | None:
        """Write a new one; durable on return. None when cancelled: then nothing is left of it."""
        ...

    def read(self, snapshot: SnapshotMeta, offset: int, size: int) -> bytes:
        """Bytes of a snapshot that there is, pieces and their frames."""
        ...

    def receive(self, snapshot: SnapshotMeta, offset: int, data: bytes, done: bool) -> ReceivedChunk:
        """Store bytes that `read` gave at another node. Complete: verified and synced, and not yet the node's own."""
        ...

    def received_pieces(self) -> Iterator[bytes]:
        """The pieces of the snapshot that was received completely."""
        ...

    def install(self, snapshot: SnapshotMeta) -> None:
        """Make the received snapshot the node's own, durably."""
        ...

    def discard_older(self, index: int) -> None:
        """Forget snapshots that end before `index`: `remove_obsolete` may remove them from now on."""
        ...

    def remove_obsolete(self) -> None:
        """Give back the room of snapshots that were forgotten."""
        ...

    def close(self) -> None:
        """Let go of all resources. Idempotent."""
        ...


class StorageError(RaftStorageError):
    """A store failed, or found something that it cannot trust; the message names the file."""


class CorruptRecord(StorageError):
    """A record on disk is not what was written there."""
