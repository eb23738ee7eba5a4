"""The loop around the core and a snapshot that comes in, where its storage cannot take it at the moment."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from raftbed.nodes.peers import PeerNetwork
from raftbed.nodes.raft import (
    AppendEntriesRequest,
    Blank,
    Config,
    Entry,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    MembershipConfig,
    Raft,
    SnapshotMeta,
)
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.storage import DiskSnapshots, MemoryStore, NodeStorage
from raftbed.nodes.storage.files import DiskDirectory
from raftbed.nodes.storage.frames import framed


def state() -> bytes:
    """What another node's machine, with the value 7 at "k", would write."""
    machine = KeyValueStateMachine()
    machine.apply({"op": "put", "key": "k", "value": 7})
    return b"".join(map(framed, machine.capture()()))


DATA = state()
MEMBERS = MembershipConfig(("n1", "n2"))
META = SnapshotMeta(100, 3, "0" * 16, MEMBERS, size=len(DATA), checksum=zlib.crc32(DATA))
FIRST = InstallSnapshotRequest(3, "n2", META, 0, DATA[:10])
LAST = InstallSnapshotRequest(3, "n2", META, 10, DATA[10:], done=True)


@pytest.mark.parametrize("reason", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("when", ["it begins", "it is complete"])
async def test_too_many_open_files_delay_a_snapshot_and_do_not_stop_the_node(
    reason: int, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    machine = KeyValueStateMachine()
    storage = NodeStorage(MemoryStore(), machine, DiskSnapshots(tmp_path))
    raft = Raft("n1", Config("test"), PeerNetwork("test", {}, timeout=1), storage)
    await raft.append_entries(AppendEntriesRequest(3, "n2", 0, 0, (Entry(1, 3, Blank()),), 1))
    if when == "it is complete":
        assert await raft.install_snapshot(FIRST) == InstallSnapshotResponse(3, 10)
    with monkeypatch.context() as strangers:

        def fail(*_: Any, **__: Any) -> Any:
            raise OSError(reason, os.strerror(reason))

        strangers.setattr(DiskDirectory, "open", fail)
        strangers.setattr(DiskDirectory, "read_at", fail)
        for _ in range(2):  # as often as it is tried
            request = FIRST if when == "it begins" else LAST
            assert await raft.install_snapshot(request) == InstallSnapshotResponse(3, 0)
    assert "a piece of a snapshot could not be stored, and is asked for again: " in caplog.text
    assert os.strerror(reason) in caplog.text
    assert await raft.install_snapshot(FIRST) == InstallSnapshotResponse(3, 10)
    assert await raft.install_snapshot(LAST) == InstallSnapshotResponse(3, len(DATA), installed=True)
    assert machine.read("k") == 7
    await raft.shutdown()
