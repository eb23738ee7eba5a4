"""A log store, a snapshot store and a state machine together are what a `Raft` calls its storage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from raftbed.nodes.raft.commands import copy_of
from raftbed.nodes.raft.interfaces import ReceivedChunk
from raftbed.nodes.raft.messages import Entry, HardState, LogBase, Normal, SnapshotMeta
from raftbed.nodes.storage.base import CorruptRecord, InitialState, LogStore, SnapshotStore
from raftbed.nodes.storage.memory import MemorySnapshots


class StateMachine(Protocol):
    """Takes committed commands, one after the other."""

    def apply(self, command: Any) -> Any:
        """Do one command and answer it. Must be deterministic.

        Must not raise: answer an error; an exception stops every node, and again after each restart.
        """
        ...

    def capture(self) -> Callable[[], Iterable[bytes]]:
        """Keep hold of the state as it is now: a function that gives it as pieces of bytes.

        Called between two commands, so it must be quick: copy no more than references. The function is called in
        another thread, while commands go on.
        """
        ...

    def load(self, pieces: Iterator[bytes]) -> Callable[[], None]:
        """Read what `capture` gave: a function that makes it the state.

        Called in another thread, while commands go on; the function, between two commands: it must be quick.
        """
        ...


class NodeStorage:
    """Implements :class:`raftbed.nodes.raft.RaftStorage`.

    Parameters:
        log: keeps term, vote and log.
        machine: is applied the commands of `Normal` entries.
        snapshots: keeps snapshots; in memory, when not given.
        shares_commands: the machine is given the log's own commands, and not a copy of each, which costs a microsecond
            or two: for a machine that never changes a command, nor anything in it, not even later.
    """

    def __init__(
        self,
        log: LogStore,
        machine: StateMachine,
        snapshots: SnapshotStore | None = None,
        *,
        shares_commands: bool = False,
    ) -> None:
        self._log = log
        self._shares_commands = shares_commands
        self._machine = machine
        self._snapshots = snapshots if snapshots is not None else MemorySnapshots()
        self._loaded: tuple[str, Callable[[], None]] | None = None

    def get_initial_state(self) -> InitialState:
        """See `RaftStorage`."""
        stored = self._log.get_initial_state()
        snapshot = self._snapshots.open()
        base = stored.base
        if snapshot is None:
            if base.index:
                raise CorruptRecord(
                    f"The log begins with entry {base.index + 1}, but there is no snapshot of what was before it."
                )
            return stored
        if snapshot.index < base.index:
            raise CorruptRecord(
                f"The log begins with entry {base.index + 1}, but the snapshot ends with entry {snapshot.index}."
            )
        self._machine.load(self._snapshots.pieces())()
        self._snapshots.discard_older(snapshot.index)
        if not _leads_to(stored, snapshot):
            # The node died between installing the snapshot and beginning the log after it.
            self._log.persist(None, base.index + 1, (), compact_to=snapshot.base())
            self.remove_obsolete()
            return InitialState(stored.hard_state, (), snapshot.base(), snapshot)
        self.remove_obsolete()  # what the node that was here before did not get round to
        return InitialState(stored.hard_state, stored.entries, base, snapshot)

    def persist(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
        *,
        compact_to: LogBase | None = None,
        install: SnapshotMeta | None = None,
    ) -> None:
        """See `RaftStorage`."""
        if compact_to is None:
            self._log.persist(hard_state, truncate_from, entries)
            return
        if install is not None:
            self._snapshots.install(install)
        self._log.persist(hard_state, truncate_from, entries, compact_to=compact_to)
        self._snapshots.discard_older(compact_to.index)

    def apply_to_state_machine(self, entries: Sequence[Entry]) -> Sequence[Any]:
        """See `RaftStorage`."""
        apply = self._machine.apply
        if self._shares_commands:
            return [apply(entry.payload.data) if isinstance(entry.payload, Normal) else None for entry in entries]
        return [apply(copy_of(entry.payload.data)) if isinstance(entry.payload, Normal) else None for entry in entries]

    def capture_state(self) -> Callable[[], Iterable[bytes]]:
        """See `RaftStorage`."""
        return self._machine.capture()

    def restore_snapshot(self, snapshot: SnapshotMeta) -> None:
        """See `RaftStorage`."""
        assert self._loaded is not None and self._loaded[0] == snapshot.id, "it was received"
        self._loaded[1]()
        self._loaded = None

    def write_snapshot(
        self, snapshot: SnapshotMeta, captured: Callable[[], Iterable[bytes]], cancelled: Callable[[], bool]
    ) -> SnapshotMeta | None:
        """See `RaftStorage`."""
        return self._snapshots.write(snapshot, captured(), cancelled)

    def remove_obsolete(self) -> None:
        """See `RaftStorage`."""
        self._log.remove_obsolete()
        self._snapshots.remove_obsolete()

    def read_snapshot(self, snapshot: SnapshotMeta, offset: int, size: int) -> bytes:
        """See `RaftStorage`."""
        return self._snapshots.read(snapshot, offset, size)

    def receive_snapshot(self, snapshot: SnapshotMeta, offset: int, data: bytes, done: bool) -> ReceivedChunk:
        """See `RaftStorage`."""
        if offset == 0:
            self._loaded = None  # of one that was not wanted any more when it was complete
        received = self._snapshots.receive(snapshot, offset, data, done)
        if received.complete:
            self._loaded = (snapshot.id, self._machine.load(self._snapshots.received_pieces()))
        return received

    def close(self) -> None:
        """See `RaftStorage`."""
        self._log.close()
        self._snapshots.close()


def _leads_to(stored: InitialState, snapshot: SnapshotMeta) -> bool:
    """The log has the last entry that the snapshot includes, or follows it."""
    place = snapshot.index - stored.base.index
    if place == 0:
        return stored.base.term == snapshot.term
    return place <= len(stored.entries) and stored.entries[place - 1].term == snapshot.term
