"""The power fails at every byte of a small workload: the store opens, and has everything that was synced.

A write of the store is several records: term and vote, a truncation, entries. What was never synced may be there after
a power failure, or a part of it; Raft has promised nothing on it. So the store may come back as it was after any
record of the write that was cut, never further back, and never with an error.

Then each sync of the workload fails, the node is started again on a disk that works, and after that the power fails:
what the store took for durable when it was opened is there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from fake_disk import FakeDisk, PowerFailure

from raftbed.nodes.raft import Blank, ConfigChange, Entry, HardState, MembershipConfig, Normal
from raftbed.nodes.storage import DiskLogStore, InitialState, StorageError

Batch = tuple[HardState | None, int | None, tuple[Entry, ...]]

SMALL = 150
"""Bytes of a segment, so that the workload needs several."""


def entry(index: int, term: int, data: object = None) -> Entry:
    return Entry(index, term, Blank() if data is None else Normal(data))


WORKLOAD: list[Batch] = [
    (HardState(1, "n1"), None, ()),
    (None, None, (Entry(1, 1, ConfigChange(MembershipConfig(("n1", "n2", "n3")))), entry(2, 1, "a"))),
    (None, None, (entry(3, 1, {"op": "put", "key": "k", "value": [1, 2.5, None]}),)),
    (HardState(2, None), None, ()),
    (None, 3, (entry(3, 2), entry(4, 2, "b"), entry(5, 2, "c"))),
    (HardState(4, "n3"), 5, (entry(5, 4), entry(6, 4, "d" * 100))),
    (None, None, (entry(7, 4, "e"),)),
]


def states(workload: list[Batch]) -> list[InitialState]:
    """What a store holds after no record, after the first, after the second, ..."""
    hard_state, entries = HardState(), []
    result = [InitialState(hard_state, ())]
    for new_hard_state, truncate_from, new_entries in workload:
        if new_hard_state is not None:
            hard_state = new_hard_state
            result.append(InitialState(hard_state, tuple(entries)))
        if truncate_from is not None:
            del entries[truncate_from - 1 :]
            result.append(InitialState(hard_state, tuple(entries)))
        for new in new_entries:
            entries.append(new)
            result.append(InitialState(hard_state, tuple(entries)))
    return result


STATES = states(WORKLOAD)


def run_until_the_power_fails(disk: FakeDisk) -> int:
    """Do the workload; returns how many of its writes the store promised to be durable."""
    store = DiskLogStore(disk, segment_size=SMALL)
    promised = 0
    try:
        store.get_initial_state()
        for batch in WORKLOAD:
            store.persist(*batch)
            promised += 1
    except PowerFailure:
        pass
    except StorageError:
        store.close()
    return promised


def bytes_of_the_workload() -> int:
    disk = FakeDisk()
    assert run_until_the_power_fails(disk) == len(WORKLOAD)
    assert len(disk.files) > 3, "segments roll over within the workload"
    return disk.written


@pytest.fixture(params=[0, 7, 400], ids=lambda ahead: f"{ahead} zeros written ahead")
def ahead(request: pytest.FixtureRequest) -> int:
    """Zeros that a power failure leaves behind the end of the segment that is written to."""
    return request.param


def every_cut(ahead: int) -> Iterator[tuple[FakeDisk, int]]:
    """The workload, cut off after each number of bytes, and how many of its writes were promised."""
    for power_for in range(bytes_of_the_workload() + 1):
        disk = FakeDisk(power_for=power_for, ahead=ahead)
        yield disk, run_until_the_power_fails(disk)


def allowed(promised: int) -> list[InitialState]:
    """What the store may hold: as after the last write that was promised, or after a record of the next one."""
    return STATES[len(states(WORKLOAD[:promised])) - 1 : len(states(WORKLOAD[: promised + 1]))]


def check_that_it_goes_on(disk: FakeDisk, found: InitialState) -> None:
    """The store writes on behind the cut, and finds that again."""
    store = DiskLogStore(disk, segment_size=SMALL)
    assert store.get_initial_state() == found, "opening changes nothing"
    more = entry(len(found.entries) + 1, 9, "more")
    store.persist(HardState(9, "n2"), None, (more,))
    again = DiskLogStore(disk.only_what_was_synced(), segment_size=SMALL).get_initial_state()
    assert again == InitialState(HardState(9, "n2"), (*found.entries, more))


def test_a_cut_after_every_byte(ahead):
    for disk, promised in every_cut(ahead):
        left = disk.all_that_was_written()
        found = DiskLogStore(left, segment_size=SMALL).get_initial_state()
        assert found in allowed(promised), f"cut after {disk.power_for} bytes"
        check_that_it_goes_on(left, found)


def test_a_cut_after_every_byte_and_what_was_not_synced_is_gone(ahead):
    for disk, promised in every_cut(ahead):
        left = disk.only_what_was_synced()
        found = DiskLogStore(left, segment_size=SMALL).get_initial_state()
        # A roll-over syncs the write before it returns: the store may know more than it could tell.
        assert found in allowed(promised), f"cut after {disk.power_for} bytes"
        check_that_it_goes_on(left, found)


@pytest.mark.parametrize(("start", "stop"), [(0, 8), (0, 40), (4, 12), (20, 60), (30, 31)])
def test_a_tear_with_a_hole_is_a_tear(start, stop, ahead):
    """A disk may write the later blocks of an unsynced write before the earlier ones."""
    for disk, promised in every_cut(ahead):
        left = disk.the_last_write_with_a_hole(start, stop)
        found = DiskLogStore(left, segment_size=SMALL).get_initial_state()
        assert found in allowed(promised), f"cut after {disk.power_for} bytes"


@pytest.mark.parametrize("sector", [16, 40])
def test_any_one_sector_of_the_last_write_is_a_tear(sector, ahead):
    """Where blocks are there already, any of a write's may be kept, and all others read as the zeros they held."""
    for disk, promised in every_cut(ahead):
        loose = max(len(content.data) - content.synced for content in disk.files.values()) if disk.files else 0
        for start in range(0, loose, sector):
            left = disk.only_a_part_of_the_last_write(start, start + sector)
            found = DiskLogStore(left, segment_size=SMALL).get_initial_state()
            assert found in allowed(promised), f"cut after {disk.power_for} bytes"
            check_that_it_goes_on(left, found)


@pytest.mark.parametrize("how", ["all_that_was_written", "only_what_was_synced"])
def test_power_failures_while_recovering_from_a_power_failure(ahead, how):
    for disk, promised in every_cut(ahead):
        left = getattr(disk, how)()
        for power_for in (0, 1, 10):
            left.power_for, left.written = power_for, 0
            with contextlib.suppress(PowerFailure):  # the last write is written again, or the header it was torn in
                DiskLogStore(left, segment_size=SMALL).get_initial_state()
            left = getattr(left, how)()
        assert DiskLogStore(left, segment_size=SMALL).get_initial_state() in allowed(promised)


# -- syncs that fail --------------------------------------------------------------------------------------------------


@pytest.fixture(params=[(0, 0), (0, 30), (10, 1000)], ids=["nothing", "its beginning", "its end"])
def reaches(request: pytest.FixtureRequest) -> tuple[int, int]:
    """What of a write of which the sync fails is written all the same."""
    return request.param


def every_failing_sync(ahead: int, reaches: tuple[int, int]) -> Iterator[tuple[FakeDisk, int]]:
    """The workload up to each of its syncs, which fails, and how many of its writes were promised.

    Syncs of the directory, and those that cut off zeros, are among them. The node has ended; its disk works again.
    """
    for syncs in range(1000):
        disk = FakeDisk(ahead=ahead)
        disk.syncs_left, disk.reaches = syncs, reaches
        promised = run_until_the_power_fails(disk)
        if not disk.failing_sync:
            assert syncs > 2 * len(WORKLOAD), "each write had one that failed"
            assert promised == len(WORKLOAD)
            return
        disk.works_again()
        yield disk, promised


def check_that_it_is_durable(disk: FakeDisk, found: InitialState) -> None:
    """The power fails, whatever it takes."""
    for left in (disk.all_that_was_written(), disk.only_what_was_synced()):
        assert DiskLogStore(left, segment_size=SMALL).get_initial_state() == found


def test_what_is_found_after_a_failed_sync_is_durable(ahead, reaches):
    for disk, promised in every_failing_sync(ahead, reaches):
        found = DiskLogStore(disk, segment_size=SMALL).get_initial_state()
        assert found in allowed(promised)
        check_that_it_is_durable(disk, found)
        check_that_it_goes_on(disk, found)


def test_what_a_failed_sync_did_not_write_is_a_tear_after_a_power_failure(ahead, reaches):
    for disk, promised in every_failing_sync(ahead, reaches):
        for left in (disk.all_that_was_written(), disk.only_what_was_synced()):
            found = DiskLogStore(left, segment_size=SMALL).get_initial_state()
            assert found in allowed(promised)
            check_that_it_goes_on(left, found)


@pytest.mark.parametrize("syncs", range(4))
def test_syncs_that_fail_at_the_start_after_a_failed_sync(ahead, reaches, syncs):
    """The disk fails on, so the node ends again, and may be started as often as one likes."""
    for disk, promised in every_failing_sync(ahead, reaches):
        disk.syncs_left = syncs
        with contextlib.suppress(StorageError):
            store = DiskLogStore(disk, segment_size=SMALL)
            store.get_initial_state()
        store.close()
        disk.works_again()
        found = DiskLogStore(disk, segment_size=SMALL).get_initial_state()
        assert found in allowed(promised)
        check_that_it_is_durable(disk, found)
        check_that_it_goes_on(disk, found)


@pytest.mark.parametrize("how", ["all_that_was_written", "only_what_was_synced"])
def test_a_power_failure_at_the_start_after_a_failed_sync(ahead, reaches, how):
    """It may come after any byte of what is written again; what was promised is there."""
    for disk, promised in every_failing_sync(ahead, reaches):
        for power_for in range(250):
            tried = disk.copy()
            tried.power_for, tried.written = power_for, 0
            with contextlib.suppress(PowerFailure):
                DiskLogStore(tried, segment_size=SMALL).get_initial_state()
            left = getattr(tried, how)()
            found = DiskLogStore(left, segment_size=SMALL).get_initial_state()
            assert found in allowed(promised)
            if tried.written < power_for:
                break
        else:
            raise AssertionError("more was written at the start than the last write")


@pytest.mark.parametrize("how", ["all_that_was_written", "only_what_was_synced"])
def test_a_power_failure_at_an_ordinary_start_takes_nothing(ahead, how):
    """All that the store has was durable, and what it writes again is in its place, so it stays."""
    disk = FakeDisk(ahead=ahead)
    run_until_the_power_fails(disk)
    for power_for in range(disk.size(disk.names()[-1]) + 1):
        tried = disk.copy()
        tried.power_for, tried.written = power_for, 0
        with contextlib.suppress(PowerFailure):
            DiskLogStore(tried, segment_size=SMALL).get_initial_state()
        assert DiskLogStore(getattr(tried, how)(), segment_size=SMALL).get_initial_state() == STATES[-1]


def test_a_start_writes_no_more_than_the_last_write():
    """Else starting an ordinary node would take the longer, the longer its log is."""
    disk = FakeDisk()
    store = DiskLogStore(disk)
    store.get_initial_state()
    for index in range(1, 101):
        store.persist(None, None, (entry(index, 1, "x" * 1000),))
    disk.written = 0
    assert len(DiskLogStore(disk).get_initial_state().entries) == 100
    assert 1000 < disk.written < 1100
