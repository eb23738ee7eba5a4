"""The loop around the core and the files that compaction makes obsolete: removed beside the log, never before it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from raftbed.nodes.raft import Config, Raft
from raftbed.nodes.storage import DiskLogStore, DiskSnapshots, NodeStorage, StorageError

NOBODY: Any = object()  # the network of a node without peers


class Machine:
    """A state machine that keeps nothing."""

    def apply(self, command: Any) -> None:
        pass

    def capture(self) -> Callable[[], Iterable[bytes]]:
        return lambda: [b"state"]

    def load(self, pieces: Iterator[bytes]) -> Callable[[], None]:
        return lambda: None


async def compact(raft: Raft) -> None:
    for number in range(20):
        await raft.client_write("x" * 100 + str(number))
    await raft.trigger_snapshot()


async def test_old_segments_and_snapshots_are_removed_beside_the_log(tmp_path, monkeypatch) -> None:
    """Removing a large file takes a while, and the next sync is not to wait for it."""
    removed: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    unlink = os.unlink

    def remove(name: str, **directory: int) -> None:
        unlink(name, **directory)
        loop.call_soon_threadsafe(removed.put_nowait, (threading.current_thread().name, name))

    monkeypatch.setattr(os, "unlink", remove)
    log = DiskLogStore(tmp_path / "log", segment_size=500)
    storage = NodeStorage(log, Machine(), DiskSnapshots(tmp_path / "snapshots"))
    raft = Raft("n1", Config("test", trailing_logs=0), NOBODY, storage)
    await raft.initialize({"n1"})
    await compact(raft)
    assert await removed.get() == ("raft-snapshots-n1", "00000001.log")
    await compact(raft)
    while not (await removed.get())[1].endswith(".snapshot"):
        pass
    await raft.shutdown()
    while not removed.empty():
        assert removed.get_nowait()[0] == "raft-snapshots-n1"
    assert len(list((tmp_path / "log").iterdir())) == 1
    assert len(list((tmp_path / "snapshots").iterdir())) == 1


async def test_what_cannot_be_removed_is_logged_and_stops_nothing(tmp_path, monkeypatch, caplog) -> None:
    log = DiskLogStore(tmp_path / "log", segment_size=500)
    storage = NodeStorage(log, Machine(), DiskSnapshots(tmp_path / "snapshots"))
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail() -> None:
        loop.call_soon_threadsafe(tried.set)
        raise StorageError("00000001.log: an obsolete segment cannot be removed: Operation not permitted.")

    raft = Raft("n1", Config("test", trailing_logs=0), NOBODY, storage)
    await raft.initialize({"n1"})
    monkeypatch.setattr(storage, "remove_obsolete", fail)
    await compact(raft)
    await tried.wait()
    await compact(raft)
    await raft.shutdown()
    assert "what the log forgot could not be removed: 00000001.log" in caplog.text
