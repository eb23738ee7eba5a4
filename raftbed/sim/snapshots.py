"""What a simulated node does for snapshots, beside everything else that goes on: the twin of
`raftbed.nodes.raft.snapshot_work` in virtual time.

Writing, receiving and reading each take their time, after which they happen at once, synced; a power failure before
that leaves nothing of them.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

import msgspec

from raftbed.nodes.raft.config import MILLISECOND, Config
from raftbed.nodes.raft.errors import RaftStorageError
from raftbed.nodes.raft.events import (
    AbortSnapshot,
    ChunkStored,
    Event,
    Persist,
    Restore,
    Send,
    SnapshotFailed,
    SnapshotTaken,
    StoreChunk,
    TakeSnapshot,
)
from raftbed.nodes.raft.messages import InstallSnapshotRequest, Request
from raftbed.nodes.storage import NodeStorage
from raftbed.sim.disk import SimulatedDisk
from raftbed.sim.timeline import Timeline

_WRITE = (2_000_000, 30_000_000)  # nanoseconds
_CHUNK = (200_000, 2_000_000)
_REMOVAL = 10_000_000  # till what was made obsolete is removed; a crash before that leaves it


class Process(Protocol):
    """What the work needs of the node whose process it belongs to."""

    def push(self, event: Event) -> None:
        """Have the core take an event, unless the process is paused: then afterwards."""
        ...

    def fail(self, error: Exception) -> None:
        """The process cannot go on."""
        ...

    def carry(self, message: Send, request: Request) -> None:
        """Bring a message to its peer; `request` is what it says."""
        ...

    def gave_up(self, message: Send) -> None:
        """A message had no answer for too long, or could not be sent."""
        ...


class SnapshotWork:
    """The snapshot work of one process; whatever is left of it when that ends does not happen.

    Parameters:
        process: whose.
        storage: has the snapshots.
        disk: they are on.
        config: how large pieces are, and how long one may take.
        timeline: virtual time.
        random: drawn from for how long things take.
    """

    def __init__(
        self,
        process: Process,
        storage: NodeStorage,
        disk: SimulatedDisk,
        config: Config,
        timeline: Timeline,
        random: Random,
    ) -> None:
        self._process = process
        self._storage = storage
        self._disk = disk
        self._config = config
        self._timeline = timeline
        self._random = random
        self._ended = False
        self._writing = 0  # number of the snapshot that is being written; another number: it was aborted

    def end(self) -> None:
        """The process is gone."""
        self._ended = True

    def take(self, effect: TakeSnapshot) -> None:
        """Keep hold of the state, and write it down."""
        captured = self._storage.capture_state()
        self._writing += 1
        self._later(_WRITE, self._write, effect, captured, self._writing)

    def abort(self, _effect: AbortSnapshot) -> None:
        """Stop writing."""
        self._writing += 1

    def store(self, effect: StoreChunk) -> None:
        """Store a piece that a leader sent."""
        self._later(_CHUNK, self._receive, effect)

    def persisted(self, persist: Persist | None) -> None:
        """Something is durable: where that made files obsolete, have them removed."""
        if persist is not None and persist.compact_to is not None:
            self._timeline.after(_REMOVAL, self._if_alive, self._storage.remove_obsolete, ())

    def restore(self, effect: Restore) -> None:
        """Make what was received the state.

        Raises:
            RaftStorageError: it cannot be done.
        """
        try:
            self._storage.restore_snapshot(effect.snapshot)
        except Exception as error:
            raise RaftStorageError(f"the snapshot could not be restored: {error}") from error

    def send(self, message: Send) -> None:
        """Read the piece that the message is to carry, and send it."""
        self._later(_CHUNK, self._read_and_send, message)
        self._timeline.after(self._config.install_snapshot_timeout * MILLISECOND, self._give_up, message)

    def _later(self, time: tuple[int, int], action: Callable[..., None], *arguments: Any) -> None:
        self._timeline.after(self._random.randint(*time), self._if_alive, action, arguments)

    def _if_alive(self, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if not self._ended:
            action(*arguments)

    def _write(self, effect: TakeSnapshot, captured: Callable[[], Any], number: int) -> None:
        written, reason = None, "aborted"
        try:
            if number == self._writing:
                written = self._storage.write_snapshot(effect.snapshot, captured, lambda: False)
                self._disk.commit()
        except Exception as error:  # as in a live node: the log goes on as it is
            reason = str(error)
        if written is not None:
            self._process.push(SnapshotTaken(written))
        else:
            self._process.push(SnapshotFailed(effect.snapshot.index, reason))

    def _receive(self, effect: StoreChunk) -> None:
        request = effect.request
        try:
            received = self._storage.receive_snapshot(request.snapshot, request.offset, request.data, request.done)
            self._disk.commit()
        except Exception as error:
            self._process.fail(RaftStorageError(f"a snapshot could not be received: {error}"))
            return
        self._process.push(ChunkStored(effect.token, request, received.next_offset, received.complete))

    def _read_and_send(self, message: Send) -> None:
        request = message.request
        assert isinstance(request, InstallSnapshotRequest)
        try:
            data = self._storage.read_snapshot(request.snapshot, request.offset, self._config.snapshot_max_chunk_size)
        except Exception:  # it may have given way to a newer one
            self._process.gave_up(message)
            return
        done = request.offset + len(data) == request.snapshot.size
        self._process.carry(message, msgspec.structs.replace(request, data=data, done=done))

    def _give_up(self, message: Send) -> None:
        if not self._ended:
            self._process.gave_up(message)
