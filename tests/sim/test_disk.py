"""The simulated disk keeps what a real one promises, and not more."""

from __future__ import annotations

from random import Random

import pytest

from raftbed.nodes.raft import Blank, Entry, HardState
from raftbed.nodes.storage.base import StorageError
from raftbed.nodes.storage.log_store import DiskLogStore
from raftbed.sim.disk import SimulatedDisk


def disk_with(synced: bytes, loose: bytes, seed: int = 0) -> SimulatedDisk:
    disk = SimulatedDisk(Random(seed))
    file = disk.open("log")
    file.append(synced)
    file.sync()
    disk.sync()
    disk.commit()
    file.append(loose)
    return disk


def test_a_power_failure_keeps_what_was_synced_and_any_part_of_the_rest():
    left = set()
    for seed in range(200):
        disk = disk_with(b"kept", b"lose", seed)
        disk.fail_power()
        assert disk.read("log").startswith(b"kept")
        left.add(disk.read("log")[4:])
    assert b"" in left
    assert b"lose" in left
    assert b"lo" in left, "a write torn in the middle"
    assert b"\0\0se" in left, "a later page without an earlier one"


def test_a_sync_is_worth_nothing_before_the_node_has_been_told_of_it():
    lost = False
    for seed in range(20):
        disk = SimulatedDisk(Random(seed))
        file = disk.open("log")
        disk.sync()
        file.append(b"data")
        file.sync()
        assert disk.unsynced == 4
        disk.fail_power()
        lost = lost or disk.read("log") != b"data"
    assert lost


def test_a_kill_loses_nothing_but_a_part_of_the_write_under_way():
    left = set()
    for seed in range(100):
        disk = disk_with(b"kept", b"written", seed)
        disk.mark()
        disk.open("log").append(b"now")
        disk.kill(writing=True)
        assert disk.read("log").startswith(b"keptwritten")
        left.add(disk.read("log"))
    assert len(left) == 4
    assert b"keptwrittennow" in left


def test_removing_a_file_syncs_no_write_under_way_in_another():
    disk = disk_with(b"", b"")
    disk.open("old").append(b"obsolete")
    disk.open("log").append(b"data")
    disk.open("log").sync()
    disk.remove("old")
    assert disk.names() == ["log"]
    assert disk.unsynced == 4


def test_what_a_failed_sync_did_not_write_can_be_read_and_is_on_no_disk():
    """As on Linux: a sync that succeeds after that one does not write it; writing it again does."""
    for again in (False, True):
        disk = disk_with(b"kept", b"failed")
        file = disk.open("log")
        disk.broken = True
        with pytest.raises(OSError, match="Input/output"):
            file.sync()
        disk.broken = False
        file.sync()
        disk.commit()
        assert disk.read("log") == b"keptfailed"
        if again:
            disk.write_again("log", 5, b"aile")
        disk.fail_power()
        assert disk.read("log") == (b"kept\0aile\0" if again else b"kept" + bytes(6))


@pytest.mark.parametrize("segment_size", [1 << 20, 300])
def test_what_the_log_store_finds_after_a_failed_sync_outlasts_a_power_failure(segment_size):
    for seed in range(100):
        random = Random(seed)
        disk = SimulatedDisk(random)
        store = DiskLogStore(disk, segment_size=segment_size)
        store.get_initial_state()
        for index in range(1, random.randint(2, 30)):
            store.persist(HardState(index, None), None, [Entry(index, index, Blank())])
            disk.commit()
        disk.broken = True
        with pytest.raises(StorageError, match="Input/output"):
            store.persist(HardState(99, "n2"), None, [Entry(index + 1, 99, Blank())])
        disk.under_way.clear()
        disk.broken = False
        found = DiskLogStore(disk, segment_size=segment_size).get_initial_state()
        assert found.hard_state == HardState(99, "n2"), "a disk may also have written what it failed to sync"
        disk.commit()
        disk.fail_power()
        assert DiskLogStore(disk, segment_size=segment_size).get_initial_state() == found


def test_a_full_disk_takes_a_part_and_a_broken_one_cannot_be_read():
    disk = disk_with(b"1234", b"")
    disk.full = True
    with pytest.raises(OSError, match="No space left"):
        disk.open("log").append(b"5678")
    assert disk.read("log") == b"123456"
    disk.broken = True
    with pytest.raises(OSError, match="Input/output"):
        disk.read("log")


@pytest.mark.parametrize("segment_size", [1 << 20, 300])
def test_the_log_store_recovers_whatever_a_power_failure_leaves(segment_size):
    for seed in range(150):
        random = Random(seed)
        disk = SimulatedDisk(random)
        promised = 0
        store = DiskLogStore(disk, segment_size=segment_size)
        store.get_initial_state()
        disk.commit()
        for index in range(1, random.randint(2, 30)):
            store.persist(HardState(index, None), None, [Entry(index, index, Blank())])
            if random.random() < 0.9:
                disk.commit()
                promised = index
            else:
                break
        disk.fail_power()
        found = DiskLogStore(disk, segment_size=segment_size).get_initial_state()
        assert len(found.entries) >= promised
        assert found.hard_state.current_term >= promised


def test_a_store_on_a_broken_disk_does_not_open():
    disk = disk_with(b"", b"")
    disk.broken = True
    with pytest.raises(StorageError):
        DiskLogStore(disk).get_initial_state()
