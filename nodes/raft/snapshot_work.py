"""What the driver does for snapshots, beside everything else that goes on: writing, storing, reading, sending them, and
removing what they made obsolete.

It has a thread of its own, made when it is first needed: a snapshot that is written for seconds must not keep the log
waiting. Only the event loop touches the core; what is done here comes back to it as an event.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from raftbed.nodes.raft.config import Config
from raftbed.nodes.raft.errors import RaftStorageError, because_of, in_words, was_foreseen
from raftbed.nodes.raft.events import (
    AbortSnapshot,
    Answered,
    ChunkStored,
    Event,
    Failed,
    Persist,
    Restore,
    Send,
    SnapshotFailed,
    SnapshotTaken,
    StoreChunk,
    TakeSnapshot,
)
from raftbed.nodes.raft.interfaces import RaftNetwork, RaftStorage, ReceivedChunk
from raftbed.nodes.raft.messages import InstallSnapshotRequest, InstallSnapshotResponse, SnapshotMeta
from raftbed.nodes.raft.peer_failures import PeerFailures
from raftbed.nodes.raft.storage_thread import StorageThread, StorageWorker, Workers

_log = logging.getLogger("raftbed.nodes")


class SnapshotWork:
    """Does the snapshot effects of one node's core.

    Parameters:
        name: of the thread.
        config: how large pieces are, and how long one may take.
        network: carries them.
        storage: has them.
        push: takes the event at the end of each piece of work.
        fail: is told why the node cannot go on.
        current: the node's snapshot.
        failures: logs what the network does wrong.
        workers: make the thread.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        network: RaftNetwork,
        storage: RaftStorage,
        push: Callable[[Event], None],
        fail: Callable[[Exception], None],
        current: Callable[[], SnapshotMeta | None],
        failures: PeerFailures,
        workers: Workers = StorageThread,
    ) -> None:
        self._name = name
        self._config = config
        self._network = network
        self._storage = storage
        self._push = push
        self._fail = fail
        self._current = current
        self._failures = failures
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._thread: StorageWorker | None = None
        self._abort = threading.Event()
        self._ended = False
        self._taken_index = 0  # the core may not know of it yet, while the disk works
        self._sending: set[asyncio.Task[None]] = set()

    def do(self, effect: TakeSnapshot | AbortSnapshot | StoreChunk | Restore) -> None:
        """Begin what the core wants.

        Raises:
            RaftStorageError: the received state could not be made the state machine's.
        """
        match effect:
            case TakeSnapshot(snapshot):
                self._take(snapshot)
            case AbortSnapshot():
                self._abort.set()
            case StoreChunk():
                self._store(effect)
            case Restore(snapshot):
                try:
                    self._storage.restore_snapshot(snapshot)
                except Exception as error:
                    raise RaftStorageError(f"the snapshot could not be restored: {in_words(error)}") from error

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Callable[..., None]) -> None:
        if self._thread is None:
            self._thread = self._workers(self._loop, self._name)
        self._thread.call(function, arguments, done)

    def _take(self, snapshot: SnapshotMeta) -> None:
        abort = self._abort = threading.Event()

        def done(written: SnapshotMeta | None, error: Exception | None) -> None:
            if error is not None:  # the log goes on as it is: nothing depends on it being short
                where = None if was_foreseen(error) else error
                _log.warning("the snapshot of entry %d failed: %s", snapshot.index, in_words(error), exc_info=where)
            if written is not None:
                self._taken_index = written.index
                self._push(SnapshotTaken(written))
            else:
                self._push(SnapshotFailed(snapshot.index, in_words(error) if error else "aborted", error))

        try:
            captured = self._storage.capture_state()
        except Exception as error:
            done(None, error)
            return
        self._call(self._storage.write_snapshot, (snapshot, captured, abort.is_set), done)

    def _store(self, effect: StoreChunk) -> None:
        request = effect.request

        def done(received: ReceivedChunk | None, error: Exception | None) -> None:
            if error is not None and _too_many_files(error):  # strangers' connections, say; what is the node's is whole
                _log.warning("a piece of a snapshot could not be stored, and is asked for again: %s", error)
                self._push(ChunkStored(effect.token, request, 0, False))
            elif error is not None or received is None:
                reason = in_words(error) if error is not None else "receive_snapshot returned None"
                self._fail(because_of(error, RaftStorageError(f"a snapshot could not be received: {reason}")))
            else:
                self._push(ChunkStored(effect.token, request, received.next_offset, received.complete))

        arguments = (request.snapshot, request.offset, request.data, request.done)
        self._call(self._storage.receive_snapshot, arguments, done)

    def persisted(self, persist: Persist | None) -> None:
        """Something is durable: where that made files obsolete, have them removed."""
        if persist is None or persist.compact_to is None or self._ended:
            return

        def done(_result: None, error: Exception | None) -> None:
            if error is not None:  # it costs room, and nothing else: tried again at the next compaction and start
                _log.warning("what the log forgot could not be removed: %s", in_words(error))

        self._call(self._storage.remove_obsolete, (), done)

    # -- sending --------------------------------------------------------------------------------------------------

    def send(self, message: Send) -> None:
        """Read the piece that the message is to carry, and send it."""
        task = self._loop.create_task(self._send(message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, message: Send) -> None:
        event: Event = Failed(message)
        try:
            async with asyncio.timeout(self._config.install_snapshot_timeout / 1000):
                filled = await self._filled(message)
                if filled is not None:
                    event = self._event(message, await self._network.install_snapshot(message.to, filled))
        except Exception as error:  # a network may fail in any way it likes
            if not self._failures.raised(message, error):
                _log.info("a piece of a snapshot did not reach %s: %s", message.to, in_words(error))
        self._push(event)

    def _event(self, message: Send, answer: object) -> Event:
        if isinstance(answer, InstallSnapshotResponse):
            return Answered(message, answer)
        self._failures.answered(message, answer)
        return Failed(message)

    async def _filled(self, message: Send) -> InstallSnapshotRequest | None:
        """The message with its piece; None where that cannot be read."""
        request = message.request
        assert isinstance(request, InstallSnapshotRequest)
        snapshot = request.snapshot
        try:
            data = await self._read(request)
        except Exception as error:
            current = self._current()
            if current is None or current.id != snapshot.id or self._taken_index > snapshot.index:
                # The peer will be sent the newer one.
                _log.info("snapshot %s gave way to a newer one before %s had it", snapshot.id, message.to)
            elif _too_many_files(error):
                self._failures.unread(message, error)
            else:  # a peer that needs it would wait for ever; another leader may have what this one lost
                reason = f"the snapshot cannot be read: {in_words(error)}"
                self._fail(because_of(error, RaftStorageError(reason)))
            return None
        return msgspec.structs.replace(request, data=data, done=request.offset + len(data) == snapshot.size)

    def _read(self, request: InstallSnapshotRequest) -> asyncio.Future[bytes]:
        reading: asyncio.Future[bytes] = self._loop.create_future()

        def done(data: bytes, error: Exception | None) -> None:
            if reading.done():
                return
            if error is not None:
                reading.set_exception(error)
            else:
                reading.set_result(data)

        arguments = (request.snapshot, request.offset, self._config.snapshot_max_chunk_size)
        self._call(self._storage.read_snapshot, arguments, done)
        return reading

    # -- the end --------------------------------------------------------------------------------------------------

    def end(self, then: Callable[[], None]) -> None:
        """Stop, and call `then` when nothing uses the storage any more."""
        self._abort.set()
        self._ended = True
        for task in self._sending:
            task.cancel()
        if self._thread is None:
            then()
        else:
            self._thread.call(lambda: None, (), lambda _result, _error: then())
            self._thread.end()


def _too_many_files(error: BaseException | None) -> bool:
    """No file could be opened, because too many are."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        error = error.__cause__
    return False
