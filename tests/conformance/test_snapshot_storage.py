"""What stores must do about snapshots and compaction; the same tests run on each implementation.

Then, on the disk, with the power cut after every byte: whatever is left opens, and has what was promised.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from in_process import ListMachine

from raftbed.nodes.raft import ConfigChange, Entry, HardState, LogBase, MembershipConfig, Normal, SnapshotMeta
from raftbed.nodes.raft.log import Log
from raftbed.nodes.storage import (
    CorruptRecord,
    DiskLogStore,
    DiskSnapshots,
    MemorySnapshots,
    MemoryStore,
    NodeStorage,
)

sys.path.append(str(Path(__file__).parent.parent / "unit" / "storage"))
from fake_disk import FakeDisk, PowerFailure

MEMBERS = MembershipConfig(("n1", "n2", "n3"))
Opened = tuple[NodeStorage, ListMachine]


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(
        Entry(index, term, ConfigChange(MEMBERS) if index == 1 else Normal(index)) for index in range(first, last + 1)
    )


def meta(index: int, term: int = 1) -> SnapshotMeta:
    """Says what a snapshot of `entries(1, index)` is, before it is written."""
    return SnapshotMeta(index, term, Log(entries(1, index, term)).prefix_hash(index), MEMBERS)


@pytest.fixture(params=["memory", "disk", "disk with small segments"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Opened]:
    memory, snapshots = MemoryStore(), MemorySnapshots()
    opened: list[NodeStorage] = []

    def open_again() -> Opened:
        machine = ListMachine()
        for before in opened:
            before.close()
        if request.param == "memory":
            storage = NodeStorage(memory, machine, snapshots)
        else:
            segment_size = 200 if "small" in request.param else 1 << 20
            log = DiskLogStore(tmp_path / "log", segment_size=segment_size)
            storage = NodeStorage(log, machine, DiskSnapshots(tmp_path / "snapshots"))
        opened.append(storage)
        return storage, machine

    request.addfinalizer(lambda: [storage.close() for storage in opened])
    return open_again


def written(storage: NodeStorage, machine: ListMachine, count: int, trailing: int = 2) -> SnapshotMeta:
    """Writes and applies entries 1 to `count`, takes a snapshot, and compacts the log but for some entries."""
    storage.persist(HardState(1, "n1"), None, entries(1, count))
    storage.apply_to_state_machine(entries(1, count))
    snapshot = storage.write_snapshot(meta(count), storage.capture_state(), lambda: False)
    assert snapshot is not None
    base = Log(entries(1, count)).base_at(count - trailing)
    storage.persist(None, None, (), compact_to=base)
    return snapshot


def receive(
    storage: NodeStorage, snapshot: SnapshotMeta, data: bytes, size: int = 7, *, total: int | None = None
) -> bool:
    """Receives the first pieces of a snapshot, or all; tells whether it is complete and sound."""
    done = False
    for offset in range(0, len(data), size):
        piece = data[offset : offset + size]
        last = offset + len(piece) == (len(data) if total is None else total)
        done = storage.receive_snapshot(snapshot, offset, piece, last).complete
    return done


def test_do_log_compaction(reopen):
    """Snapshot and the rest of the log come back; the state machine has what the snapshot includes."""
    storage, machine = reopen()
    storage.get_initial_state()
    snapshot = written(storage, machine, 20)
    storage.persist(HardState(2, None), None, entries(21, 23))
    storage, machine = reopen()
    state = storage.get_initial_state()
    assert (state.hard_state, state.snapshot) == (HardState(2, None), snapshot)
    assert (state.base, state.entries) == (Log(entries(1, 20)).base_at(18), entries(19, 23))
    assert machine.commands == list(range(2, 21))


def test_compaction_again_and_again(reopen):
    storage, machine = reopen()
    storage.get_initial_state()
    for round_ in range(1, 8):
        first, last = 10 * round_ - 9, 10 * round_
        storage.persist(None, None, entries(first, last))
        storage.apply_to_state_machine(entries(first, last))
        storage.write_snapshot(meta(last), storage.capture_state(), lambda: False)
        storage.persist(None, None, (), compact_to=Log(entries(1, last)).base_at(last - 3))
        storage, machine = reopen()
        state = storage.get_initial_state()
        assert state.entries == entries(last - 2, last)
        assert machine.commands == list(range(2, last + 1))


def test_segments_are_removed(tmp_path):
    machine = ListMachine()
    storage = NodeStorage(
        DiskLogStore(tmp_path / "log", segment_size=200), machine, DiskSnapshots(tmp_path / "snapshots")
    )
    storage.get_initial_state()
    storage.persist(None, None, entries(1, 10))
    for number in range(11, 40):
        storage.persist(None, None, entries(number, number))
    before = len(list((tmp_path / "log").iterdir()))
    storage.write_snapshot(meta(39), storage.capture_state(), lambda: False)
    storage.persist(None, None, (), compact_to=Log(entries(1, 39)).base_at(37))
    storage.remove_obsolete()
    assert len(list((tmp_path / "log").iterdir())) < before / 2
    storage.close()


def test_get_current_snapshot(reopen):
    """A piece is what another node's `receive_snapshot` takes; all pieces are the whole."""
    storage, machine = reopen()
    storage.get_initial_state()
    snapshot = written(storage, machine, 20)
    whole = storage.read_snapshot(snapshot, 0, 1 << 20)
    assert len(whole) == snapshot.size
    pieces = [storage.read_snapshot(snapshot, offset, 7) for offset in range(0, snapshot.size, 7)]
    assert b"".join(pieces) == whole


def test_create_snapshot_and_finalize_snapshot_installation(reopen):
    storage, machine = reopen()
    storage.get_initial_state()
    snapshot = written(storage, machine, 20)
    data = storage.read_snapshot(snapshot, 0, 1 << 20)

    storage = NodeStorage(MemoryStore(), machine := ListMachine(), MemorySnapshots())
    storage.get_initial_state()
    storage.persist(HardState(1), None, entries(1, 4))
    storage.apply_to_state_machine(entries(1, 4))
    assert receive(storage, snapshot, data)
    assert machine.commands == [2, 3, 4], "it is not in force yet"
    storage.persist(None, None, (), compact_to=snapshot.base(), install=snapshot)
    storage.restore_snapshot(snapshot)
    assert machine.commands == list(range(2, 21))
    storage.persist(None, None, entries(21, 22))
    state = storage.get_initial_state()
    assert (state.snapshot, state.base, state.entries) == (snapshot, snapshot.base(), entries(21, 22))


def test_an_installed_snapshot_comes_back(reopen):
    source = NodeStorage(MemoryStore(), ListMachine())
    source.get_initial_state()
    snapshot = written(source, ListMachine(), 20)
    data = source.read_snapshot(snapshot, 0, 1 << 20)
    storage, _ = reopen()
    storage.get_initial_state()
    storage.persist(HardState(3, "n2"), None, entries(1, 5))
    assert receive(storage, snapshot, data)
    storage.persist(None, 1, entries(21, 22), compact_to=snapshot.base(), install=snapshot)
    storage, machine = reopen()
    state = storage.get_initial_state()
    assert (state.hard_state, state.snapshot, state.entries) == (HardState(3, "n2"), snapshot, entries(21, 22))
    assert machine.commands == list(range(2, 21))


def test_a_log_that_does_not_lead_to_the_snapshot_is_begun_anew(reopen):
    """The node died between making the snapshot its own and beginning the log after it."""
    source = NodeStorage(MemoryStore(), ListMachine())
    source.get_initial_state()
    snapshot = written(source, ListMachine(), 20)
    data = source.read_snapshot(snapshot, 0, 1 << 20)
    storage, _ = reopen()
    storage.get_initial_state()
    storage.persist(HardState(3), None, entries(1, 5))
    assert receive(storage, snapshot, data)
    storage._snapshots.install(snapshot)
    storage, _ = reopen()
    state = storage.get_initial_state()
    assert (state.base, state.entries, state.hard_state) == (snapshot.base(), (), HardState(3))
    storage.persist(None, None, entries(21, 21))
    storage, _ = reopen()
    assert storage.get_initial_state().entries == entries(21, 21)


def test_a_damaged_snapshot_is_not_taken(reopen):
    storage, machine = reopen()
    storage.get_initial_state()
    snapshot = written(storage, machine, 20)
    data = bytearray(storage.read_snapshot(snapshot, 0, 1 << 20))
    data[11] ^= 1
    assert not receive(storage, snapshot, bytes(data))
    assert receive(storage, snapshot, storage.read_snapshot(snapshot, 0, 1 << 20)), "and can be sent again"


def test_pieces_that_do_not_follow_are_not_taken(reopen):
    storage, machine = reopen()
    storage.get_initial_state()
    snapshot = written(storage, machine, 20)
    assert storage.receive_snapshot(snapshot, 0, b"abc", False).next_offset == 3
    assert storage.receive_snapshot(snapshot, 5, b"abc", False).next_offset == 0, "begin again"


def test_pieces_of_another_snapshot_are_not_taken(reopen):
    storage, _ = reopen()
    storage.get_initial_state()
    assert storage.receive_snapshot(meta(5), 0, b"piece", done=False).next_offset == 5
    assert storage.receive_snapshot(meta(6), 5, b"another", done=False).next_offset == 0


@pytest.mark.parametrize("dies", [True, False])
def test_a_snapshot_of_what_the_log_lacks(reopen, dies):
    """A leader applies what a quorum of others holds, and may take a snapshot of it before its own disk is done."""
    storage, machine = reopen()
    storage.get_initial_state()
    storage.persist(HardState(1, "n1"), None, entries(1, 5))
    storage.apply_to_state_machine(entries(1, 10))
    assert storage.write_snapshot(meta(10), storage.capture_state(), lambda: False) is not None
    if not dies:
        storage.persist(None, None, entries(11, 12), compact_to=Log(entries(1, 10)).base_at(10))
    storage, again = reopen()
    state = storage.get_initial_state()
    assert (state.hard_state, state.base.index) == (HardState(1, "n1"), 10)
    assert state.entries == (() if dies else entries(11, 12))
    assert again.commands == machine.commands == list(range(2, 11))


def test_nothing_is_left_of_a_snapshot_that_was_cancelled(reopen):
    storage, _ = reopen()
    storage.get_initial_state()
    storage.persist(HardState(1), None, entries(1, 20))
    storage.apply_to_state_machine(entries(1, 20))
    calls = iter([False, False, True])
    assert storage.write_snapshot(meta(20), storage.capture_state(), lambda: next(calls)) is None
    storage, _ = reopen()
    assert storage.get_initial_state().snapshot is None


@pytest.mark.parametrize("seed", range(30))
def test_random_writes_compactions_and_restarts(seed, tmp_path):
    """Small segments on disk hold, after each restart, what the store in memory does."""
    random = Random(seed)
    model, term = MemoryStore(), 1
    disk = DiskLogStore(tmp_path, segment_size=random.choice([100, 300, 2000]))
    disk.get_initial_state()
    for _ in range(120):
        state = model.get_initial_state()
        first, last = state.base.index + 1, state.base.index + len(state.entries)
        truncate_from = random.randint(first, last) if last >= first and random.random() < 0.15 else None
        term += truncate_from is not None
        end = last if truncate_from is None else truncate_from - 1
        compact_to = None
        match random.random():
            case draw if draw < 0.1 and end >= first:
                index = random.randint(first, end)
                compact_to = LogBase(index, 1, "00" * 8)
            case draw if draw < 0.15:
                compact_to = LogBase(end + random.randint(1, 9), term, "00" * 8)  # a snapshot came from elsewhere
                end = compact_to.index
        added = entries(end + 1, end + random.randint(0, 5), term)
        hard_state = HardState(term) if random.random() < 0.2 else None
        for store in (model, disk):
            store.persist(hard_state, truncate_from, added, compact_to=compact_to)
        if random.random() < 0.2:
            disk.close()
            disk = DiskLogStore(tmp_path, segment_size=300)
            assert disk.get_initial_state() == model.get_initial_state()
    assert disk.get_log_entries(1, 10_000) == model.get_log_entries(1, 10_000)
    disk.close()


# -- the disk ---------------------------------------------------------------------------------------------------------


class Disks:
    """A log's directory and a snapshots' one, on one power supply."""

    def __init__(self, log: FakeDisk | None = None, snapshots: FakeDisk | None = None) -> None:
        self.log, self.snapshots = log or FakeDisk(), snapshots or FakeDisk()

    def open(self) -> tuple[NodeStorage, Any, ListMachine]:
        machine = ListMachine()
        storage = NodeStorage(DiskLogStore(self.log, segment_size=300), machine, DiskSnapshots(self.snapshots))
        return storage, storage.get_initial_state(), machine

    def left(self, how: str) -> Disks:
        return Disks(getattr(self.log, how)(), getattr(self.snapshots, how)())


def workload(storage: NodeStorage, machine: ListMachine, promised: list[int]) -> None:
    """Three rounds of writing, a snapshot, compacting; `promised` has the last entry that was acknowledged."""
    for round_ in range(1, 4):
        first, last = 6 * round_ - 5, 6 * round_
        storage.persist(None, None, entries(first, last))
        promised.append(last)
        storage.apply_to_state_machine(entries(first, last))
        storage.write_snapshot(meta(last), storage.capture_state(), lambda: False)
        storage.persist(HardState(round_), None, (), compact_to=Log(entries(1, last)).base_at(last - 2))
        storage.remove_obsolete()


@pytest.mark.parametrize("how", ["all_that_was_written", "only_what_was_synced"])
@pytest.mark.parametrize("disk", ["log", "snapshots"])
def test_power_fails_at_every_byte(disk, how):
    whole = Disks()
    storage, _, machine = whole.open()
    workload(storage, machine, [])
    for cut in range(getattr(whole, disk).written):
        disks, promised = Disks(), [0]
        getattr(disks, disk).power_for = cut
        with contextlib.suppress(PowerFailure):
            storage, _, machine = disks.open()
            workload(storage, machine, promised)
        storage, state, machine = disks.left(how).open()
        last = state.entries[-1].index if state.entries else state.base.index
        assert last >= promised[-1], f"after {cut} bytes: an acknowledged entry is lost"
        covered = state.snapshot.index if state.snapshot else 0
        assert machine.commands == list(range(2, covered + 1))
        assert state.entries == entries(state.base.index + 1, last)
        storage.persist(None, None, entries(last + 1, last + 1))


def test_power_fails_while_a_snapshot_is_installed():
    source = NodeStorage(MemoryStore(), ListMachine())
    source.get_initial_state()
    snapshot = written(source, ListMachine(), 20)
    data = source.read_snapshot(snapshot, 0, 1 << 20)

    def install(disks: Disks) -> None:
        storage, _, _ = disks.open()
        storage.persist(HardState(1), None, entries(1, 5))
        receive(storage, snapshot, data)
        storage.persist(None, 1, (), compact_to=snapshot.base(), install=snapshot)

    whole = Disks()
    install(whole)
    outcomes = set()
    for disk in ("log", "snapshots"):
        for cut in range(getattr(whole, disk).written + 1):
            disks = Disks()
            getattr(disks, disk).power_for = cut
            with contextlib.suppress(PowerFailure):
                install(disks)
            _, state, machine = disks.left("only_what_was_synced").open()
            outcomes.add((state.base.index, len(state.entries), len(machine.commands)))
    assert outcomes == {(0, 0, 0), (0, 5, 0), (20, 0, 19)}, "before, or after; nothing in between"


@pytest.mark.parametrize("place", [0, 25, -1, -20, -40])
def test_a_corrupted_snapshot_is_refused_by_name(place):
    disks = Disks()
    storage, _, machine = disks.open()
    written(storage, machine, 20)
    (name,) = disks.snapshots.names()
    disks.snapshots.files[name].data[place] ^= 1
    with pytest.raises(CorruptRecord, match=name):
        disks.open()


def test_a_log_whose_snapshot_is_gone_is_refused():
    disks = Disks()
    storage, _, machine = disks.open()
    written(storage, machine, 20)
    disks.snapshots.files.clear()
    with pytest.raises(CorruptRecord, match="there is no snapshot"):
        disks.open()


def test_a_log_with_a_missing_segment_is_refused():
    disks = Disks()
    storage, *_ = disks.open()
    for number in range(1, 30):
        storage.persist(None, None, entries(number, number))
    del disks.log.files[disks.log.names()[0]]
    with pytest.raises(CorruptRecord, match="a segment is missing"):
        disks.open()
