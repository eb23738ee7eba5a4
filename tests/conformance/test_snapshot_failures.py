"""Snapshots that fail, are cancelled or come damaged: they keep no room, and nothing of them is trusted later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from test_snapshot_storage import Disks, entries, meta, receive

from raftbed.nodes.raft import HardState, LogBase
from raftbed.nodes.storage import NodeStorage, StorageError


def with_entries(disks: Disks) -> NodeStorage:
    """A node that has 20 entries, and no snapshot."""
    storage, *_ = disks.open()
    storage.persist(HardState(1), None, entries(1, 20))
    storage.apply_to_state_machine(entries(1, 20))
    return storage


def test_a_full_disk_stops_the_snapshot_and_not_the_log():
    """What was written of it is removed: the log may need the room."""
    disks = Disks()
    storage = with_entries(disks)
    disks.snapshots.full = True
    with pytest.raises(StorageError, match="No space left"):
        storage.write_snapshot(meta(20), storage.capture_state(), lambda: False)
    assert disks.snapshots.names() == []
    storage.persist(None, None, entries(21, 21))
    assert LogBase() == disks.open()[1].base


def test_a_snapshot_that_is_cancelled_at_any_point_keeps_no_room():
    for calls in range(100):
        disks = Disks()
        storage = with_entries(disks)
        answers = iter([False] * calls + [True] * 100)
        if storage.write_snapshot(meta(20), storage.capture_state(), answers.__next__) is not None:
            assert calls > 19, "it is asked before each piece"
            return
        assert disks.snapshots.names() == []
    raise AssertionError("a snapshot never comes to its end")


def test_a_snapshot_of_which_the_state_machine_fails_keeps_no_room():
    disks = Disks()
    storage = with_entries(disks)

    def captured() -> Iterator[bytes]:
        yield b"piece"
        raise ValueError("a state that cannot be encoded")

    with pytest.raises(ValueError, match="cannot be encoded"):
        storage.write_snapshot(meta(20), captured, lambda: False)
    assert disks.snapshots.names() == []


@pytest.mark.parametrize("why", ["full", "failing_sync"])
@pytest.mark.parametrize("pieces", [0, 1, 3])
def test_a_snapshot_that_cannot_be_received_keeps_no_room_and_is_begun_again(why, pieces):
    """After a failed sync nobody knows what is on disk: nothing is written behind it."""
    source = with_entries(Disks())
    snapshot = source.write_snapshot(meta(20), source.capture_state(), lambda: False)
    assert snapshot is not None
    data = source.read_snapshot(snapshot, 0, 1 << 20)
    disks = Disks()
    storage, *_ = disks.open()
    if pieces:
        receive(storage, snapshot, data[: 7 * pieces], total=len(data))
    setattr(disks.snapshots, why, True)
    with pytest.raises(StorageError, match="cannot be written"):
        storage.receive_snapshot(snapshot, 7 * pieces, data[7 * pieces :][:7], False)
    assert disks.snapshots.names() == []
    setattr(disks.snapshots, why, False)
    assert storage.receive_snapshot(snapshot, 7 * (pieces + 1), b"the next", False).next_offset == 0
    assert receive(storage, snapshot, data)
    storage.persist(None, 1, (), compact_to=snapshot.base(), install=snapshot)
    _, state, machine = disks.left("only_what_was_synced").open()
    assert (state.snapshot, machine.commands) == (snapshot, list(range(2, 21)))


def test_a_snapshot_that_came_damaged_keeps_no_room():
    source = with_entries(Disks())
    snapshot = source.write_snapshot(meta(20), source.capture_state(), lambda: False)
    assert snapshot is not None
    disks = Disks()
    storage, *_ = disks.open()
    assert not receive(storage, snapshot, bytes(snapshot.size))
    assert disks.snapshots.names() == []
