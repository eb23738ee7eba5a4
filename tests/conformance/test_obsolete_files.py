"""Segments and snapshots that are not needed any more: they are removed late, and a crash may leave any of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from test_snapshot_storage import Disks, FakeDisk, PowerFailure, entries, meta

from raftbed.nodes.raft.log import Log
from raftbed.nodes.storage import StorageError


def compacted_twice() -> Disks:
    """Old segments and an old snapshot are still there."""
    disks = Disks()
    storage, *_ = disks.open()
    for last in (20, 40):
        for number in range(last - 19, last + 1):
            storage.persist(None, None, entries(number, number))
        storage.apply_to_state_machine(entries(last - 19, last))
        assert storage.write_snapshot(meta(last), storage.capture_state(), lambda: False) is not None
        storage.persist(None, None, (), compact_to=Log(entries(1, last)).base_at(last - 2))
    assert len(disks.snapshots.names()) == 2
    assert len(disks.log.names()) == 5
    return disks


def check_that_nothing_obsolete_is_left(disks: Disks) -> None:
    assert [int(name[:20]) for name in disks.snapshots.names()] == [40]
    assert len(disks.log.names()) <= 2, "the one with the last entries, and the one that is written to"


def test_what_a_crash_between_compacting_and_removing_left_is_removed_at_the_start():
    disks = compacted_twice()
    _, state, machine = disks.open()
    check_that_nothing_obsolete_is_left(disks)
    assert (state.base.index, state.entries, len(machine.commands)) == (38, entries(39, 40), 39)
    _, again, _ = disks.open()
    assert again.entries == entries(39, 40)


def test_a_crash_at_any_point_of_removing_leaves_a_log_that_opens():
    whole = compacted_twice()
    files = len(whole.log.names()) + len(whole.snapshots.names())
    for removals in range(files):
        disks = compacted_twice()
        left = iter(range(removals))
        for disk in (disks.log, disks.snapshots):
            disk.remove = until_the_power_fails(disk, left)
        with contextlib.suppress(PowerFailure):
            disks.open()
        for disk in (disks.log, disks.snapshots):
            del disk.remove
        _, state, _ = disks.open()
        assert (state.base.index, state.entries) == (38, entries(39, 40))
        check_that_nothing_obsolete_is_left(disks)


def until_the_power_fails(disk: FakeDisk, left: Iterator[int]) -> Callable[[str], None]:
    """Removes files of a disk as long as `left` lasts."""
    remove = disk.remove

    def remove_or_fail(name: str) -> None:
        if next(left, None) is None:
            raise PowerFailure
        remove(name)

    return remove_or_fail


@pytest.mark.parametrize("disk", ["log", "snapshots"])
def test_what_cannot_be_removed_does_not_keep_a_node_from_starting(disk, caplog):
    """It costs room, and nothing else; a node that runs goes on, too."""
    disks = compacted_twice()
    failing = getattr(disks, disk)
    failing.remove = refuse
    storage, state, _ = disks.open()
    assert (state.base.index, state.entries) == (38, entries(39, 40))
    assert "what the log forgot could not be removed: /disk/" in caplog.text
    assert "Operation not permitted" in caplog.text
    other = disks.snapshots if disk == "log" else disks.log
    assert len(other.names()) <= 2, "what can be removed is"
    storage.persist(None, None, entries(41, 41))
    del failing.remove
    storage.remove_obsolete()
    check_that_nothing_obsolete_is_left(disks)
    assert disks.open()[1].entries == entries(39, 41)


def test_a_snapshot_that_does_not_lead_anywhere_and_files_that_cannot_be_removed():
    """The node died between installing a snapshot and compacting the log, and the old files cannot be removed."""
    source, disks = Disks(), compacted_twice()
    storage, *_ = source.open()
    storage.persist(None, None, entries(1, 60))
    storage.apply_to_state_machine(entries(1, 60))
    assert storage.write_snapshot(meta(60), storage.capture_state(), lambda: False) is not None
    disks.snapshots.files |= source.snapshots.files
    disks.log.remove = disks.snapshots.remove = refuse
    _, state, machine = disks.open()
    assert (state.base.index, state.entries, len(machine.commands)) == (60, (), 59)


def test_an_unfinished_snapshot_that_cannot_be_removed_does_not_keep_a_node_from_starting(caplog):
    """Nothing of it is used: it is cut off when the next one is begun."""
    disks = compacted_twice()
    disks.snapshots.open("writing.partial").append(b"a beginning")
    disks.snapshots.remove = refuse
    storage, state, _ = disks.open()
    assert state.base.index == 38
    assert "writing.partial: an unfinished snapshot cannot be removed: " in caplog.text
    storage.persist(None, None, entries(41, 60))
    storage.apply_to_state_machine(entries(41, 60))
    assert storage.write_snapshot(meta(60), storage.capture_state(), lambda: False) is not None
    _, state, machine = disks.open()
    assert (state.snapshot.index, len(machine.commands)) == (60, 59)


def refuse(name: str) -> None:
    raise PermissionError(1, "Operation not permitted", name)


def test_a_segment_that_cannot_be_removed_keeps_those_behind_it_and_stops_nothing():
    """A log of which a segment in the middle is missing would be refused."""
    disks = Disks()
    storage, *_ = disks.open()
    for number in range(1, 31):
        storage.persist(None, None, entries(number, number))
    storage.apply_to_state_machine(entries(1, 30))
    storage.write_snapshot(meta(30), storage.capture_state(), lambda: False)
    storage.persist(None, None, (), compact_to=Log(entries(1, 30)).base_at(28))
    before = disks.log.names()
    calls = iter(range(2))

    def remove_all_but_the_third(name: str) -> None:
        if next(calls, None) is None:
            raise OSError(1, "Operation not permitted")
        del disks.log.files[name]

    disks.log.remove = remove_all_but_the_third
    with pytest.raises(StorageError, match=rf"{before[2]}: an obsolete segment cannot be removed: .*not permitted"):
        storage.remove_obsolete()
    assert disks.log.names() == before[2:]
    storage.persist(None, None, entries(31, 31))
    del disks.log.remove
    storage.remove_obsolete()
    assert len(disks.log.names()) <= 2
    assert disks.open()[1].entries == entries(29, 31)
