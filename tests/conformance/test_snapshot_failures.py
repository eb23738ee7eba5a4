"""Snapshots that fail, are cancelled or come damaged: they keep no room, and nothing of them is trusted later."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from test_snapshot_storage import Disks, FakeDisk, entries, meta, receive, workload

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


# -- what a start trusts ----------------------------------------------------------------------------------------------


class Killed(BaseException):
    """SIGKILL."""


def test_a_node_killed_before_a_received_snapshots_name_was_synced():
    """The name can be read, and is not on disk. The log is compacted after that, durably; so the name must be, too."""
    source = with_entries(Disks())
    snapshot = source.write_snapshot(meta(20), source.capture_state(), lambda: False)
    assert snapshot is not None
    disks = Disks()
    storage, *_ = disks.open()
    storage.persist(HardState(1), None, entries(1, 5))
    assert receive(storage, snapshot, source.read_snapshot(snapshot, 0, 1 << 20))

    def killed() -> None:
        raise Killed

    disks.snapshots.sync = killed
    with pytest.raises(Killed):
        storage.persist(None, 1, (), compact_to=snapshot.base(), install=snapshot)
    del disks.snapshots.sync
    storage, state, _ = disks.open()
    assert state.snapshot == snapshot
    storage.persist(None, None, entries(21, 22))
    _, state, machine = disks.left("only_what_was_synced").open()
    assert (state.snapshot, state.entries) == (snapshot, entries(21, 22))
    assert machine.commands == list(range(2, 21))


def work(disks: Disks, promised: list[int]) -> None:
    """Snapshots are taken, and one is received; `promised` has the last entry that was acknowledged."""
    source = with_entries(Disks())
    received = source.write_snapshot(meta(20), source.capture_state(), lambda: False)
    assert received is not None
    storage, _, machine = disks.open()
    workload(storage, machine, promised)
    assert receive(storage, received, source.read_snapshot(received, 0, 1 << 20), size=200)
    storage.persist(None, 1, (), compact_to=received.base(), install=received)
    promised.append(20)
    storage.remove_obsolete()
    storage.persist(None, None, entries(21, 21))
    promised.append(21)
    storage.close()


@pytest.mark.parametrize("disk", ["log", "snapshots"])
def test_what_a_node_finds_after_a_failed_sync_outlasts_a_power_failure(disk):
    for syncs in range(1000):
        disks, promised = Disks(FakeDisk(ahead=50), FakeDisk()), [0]
        failing = getattr(disks, disk)
        failing.syncs_left = syncs
        with contextlib.suppress(StorageError):
            work(disks, promised)
        if not failing.failing_sync:
            assert syncs > 10
            assert promised[-1] == 21
            return
        failing.works_again()
        _, found, before = disks.open()
        last = found.entries[-1].index if found.entries else found.base.index
        assert last >= promised[-1]
        for how in ("all_that_was_written", "only_what_was_synced"):
            storage, again, machine = disks.left(how).open()
            assert (again, machine.commands) == (found, before.commands)
            storage.persist(None, None, entries(last + 1, last + 1))
    raise AssertionError("the work never comes to its end")
