"""The log store on disk: segments, corruption, failing disks, and one process at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from fake_disk import FakeDisk

from raftbed.nodes.raft import Entry, HardState, Normal
from raftbed.nodes.raft.messages import LogBase
from raftbed.nodes.storage import CorruptRecord, DiskLogStore, StorageError
from raftbed.nodes.storage.files import DiskDirectory, DiskFile
from raftbed.nodes.storage.log_store import COMPACTED_SIZE


def entries(first: int, last: int, *, size: int = 10) -> tuple[Entry, ...]:
    return tuple(Entry(index, 1, Normal("x" * size)) for index in range(first, last + 1))


def filled(disk: FakeDisk, *, writes: int = 5, segment_size: int = 1 << 20) -> DiskLogStore:
    """A store with so many writes of one entry each."""
    store = DiskLogStore(disk, segment_size=segment_size)
    store.get_initial_state()
    for index in range(1, writes + 1):
        store.persist(HardState(1, "n1") if index == 1 else None, None, entries(index, index))
    return store


# -- one write, one sync ----------------------------------------------------------------------------------------------


def test_a_write_of_many_records_is_one_sync():
    disk = FakeDisk()
    store = filled(disk, writes=0)
    before = disk.syncs
    store.persist(HardState(1, "n1"), None, entries(1, 100))
    assert disk.syncs == before + 1


def test_it_is_durable_when_persist_returns():
    disk = FakeDisk()
    filled(disk, writes=3)
    found = DiskLogStore(disk.only_what_was_synced()).get_initial_state()
    assert (found.hard_state, found.entries) == (HardState(1, "n1"), entries(1, 3))


# -- segments ---------------------------------------------------------------------------------------------------------


def test_segments_roll_over_and_are_read_in_order():
    disk = FakeDisk()
    filled(disk, writes=30, segment_size=200)
    assert disk.names() == [f"{number:08d}.log" for number in range(1, len(disk.names()) + 1)]
    assert len(disk.names()) > 3
    found = DiskLogStore(disk.only_what_was_synced(), segment_size=200).get_initial_state()
    assert (found.hard_state, found.entries) == (HardState(1, "n1"), entries(1, 30))


def test_what_was_compacted_is_soon_on_disk_no_more():
    """Else a start would read a whole segment of small entries, for seconds, to find that a snapshot has them."""
    disk = FakeDisk()
    store = filled(disk, writes=0, segment_size=64 << 20)
    for first in range(1, 2001, 50):
        base = LogBase(first - 11, 1, "00" * 8) if first > 11 else None
        store.persist(None, None, entries(first, first + 49, size=10_000), compact_to=base)
        store.remove_obsolete()
    assert sum(disk.size(name) for name in disk.names()) < 2 * COMPACTED_SIZE + 50 * 11_000
    found = DiskLogStore(disk.only_what_was_synced()).get_initial_state()
    assert (found.base.index, found.entries) == (1940, entries(1941, 2000, size=10_000))


def test_a_truncation_reaches_back_into_earlier_segments():
    disk = FakeDisk()
    store = filled(disk, writes=30, segment_size=200)
    store.persist(None, 2, (Entry(2, 2, Normal("new")),))
    found = DiskLogStore(disk.all_that_was_written()).get_initial_state()
    assert found.entries == (*entries(1, 1), Entry(2, 2, Normal("new")))


def test_a_missing_segment_is_refused():
    disk = FakeDisk()
    filled(disk, writes=30, segment_size=200)
    disk.remove("00000002.log")
    with pytest.raises(CorruptRecord, match=r"one is missing.*This node must not go on with what is left"):
        DiskLogStore(disk).get_initial_state()


def test_files_of_others_are_left_alone():
    disk = FakeDisk({"notes.txt": b"mine", "1.log": b"mine too"})
    filled(disk, writes=1)
    assert (disk.read("notes.txt"), disk.read("1.log")) == (b"mine", b"mine too")


def test_a_format_of_the_future_is_refused():
    disk = FakeDisk()
    newer = DiskLogStore(disk)
    newer_header = "raftbed.nodes.storage.log_store._VERSION"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(newer_header, 2)
        newer.get_initial_state()
    with pytest.raises(StorageError, match=r"00000001\.log: has format 2; this version reads 1"):
        DiskLogStore(disk).get_initial_state()


# -- corruption -------------------------------------------------------------------------------------------------------


def offsets_of_writes(writes: int) -> list[int]:
    """Where each write of `filled` begins in the only segment."""
    offsets = []
    for count in range(writes):
        disk = FakeDisk()
        filled(disk, writes=count)
        offsets.append(len(disk.read("00000001.log")))
    return offsets


@pytest.mark.parametrize("ahead", [0, 500])
def test_a_changed_byte_anywhere_before_the_last_write_is_corruption(ahead):
    """Silence would be the loss of what had been promised; so the store refuses, and names the file."""
    disk = FakeDisk()
    filled(disk, writes=4)
    sound = disk.read("00000001.log") + bytes(ahead)
    last_write = offsets_of_writes(4)[-1]
    for offset in range(last_write):
        damaged = bytearray(sound)
        damaged[offset] ^= 0x40
        with pytest.raises(
            CorruptRecord, match=r"/disk/00000001\.log: the record at byte \d+ is corrupted.*remove it from the cluster"
        ):
            DiskLogStore(FakeDisk({"00000001.log": bytes(damaged)})).get_initial_state()


@pytest.mark.parametrize("ahead", [0, 500])
def test_a_write_that_reads_as_zeros_with_one_behind_it_is_corruption(ahead):
    """It had been synced before the one behind it was written: it is no tear, and not the end either."""
    disk = FakeDisk()
    filled(disk, writes=4)
    sound = disk.read("00000001.log") + bytes(ahead)
    begins = offsets_of_writes(4)
    for start, stop in pairwise([0, *begins]):
        damaged = sound[:start] + bytes(stop - start) + sound[stop:]
        with pytest.raises(CorruptRecord, match=rf"00000001\.log: the record at byte {start} is corrupted"):
            DiskLogStore(FakeDisk({"00000001.log": damaged})).get_initial_state()


def test_zeros_at_the_end_of_an_earlier_segment_are_corruption():
    """They are cut off before the next segment is begun."""
    disk = FakeDisk()
    filled(disk, writes=30, segment_size=200)
    disk.files["00000002.log"].data += bytes(10)
    with pytest.raises(CorruptRecord, match=r"/disk/00000002\.log"):
        DiskLogStore(disk).get_initial_state()


def test_a_damaged_end_of_an_earlier_segment_is_corruption():
    """Only the last segment may end in a tear."""
    disk = FakeDisk()
    filled(disk, writes=30, segment_size=200)
    del disk.files["00000002.log"].data[-1:]
    with pytest.raises(CorruptRecord, match=r"/disk/00000002\.log"):
        DiskLogStore(disk).get_initial_state()


def test_an_empty_earlier_segment_is_corruption():
    disk = FakeDisk()
    filled(disk, writes=30, segment_size=200)
    disk.files["00000002.log"].data.clear()
    with pytest.raises(CorruptRecord, match=r"/disk/00000002\.log"):
        DiskLogStore(disk).get_initial_state()


def test_a_segment_in_the_place_of_another_is_corruption():
    disk = FakeDisk()
    filled(disk, writes=30, segment_size=200)
    disk.files["00000003.log"] = disk.files["00000002.log"]
    with pytest.raises(CorruptRecord, match=r"/disk/00000003\.log"):
        DiskLogStore(disk).get_initial_state()


@pytest.mark.parametrize("zeros", [0, 500])
def test_garbage_behind_the_last_write_is_a_tear(zeros):
    disk = FakeDisk()
    filled(disk, writes=3)
    disk.files["00000001.log"].data += os.urandom(50) + bytes(zeros)
    assert DiskLogStore(disk).get_initial_state().entries == entries(1, 3)


# -- disks that fail --------------------------------------------------------------------------------------------------


def test_a_failed_sync_makes_the_store_refuse_all_that_follows():
    """After a failed fsync nobody knows what is on disk, and a second one would claim that all is well."""
    disk = FakeDisk()
    store = filled(disk, writes=2)
    disk.failing_sync = True
    with pytest.raises(StorageError, match=r"/disk/00000001\.log: the log cannot be written: .*Input/output error"):
        store.persist(None, None, entries(3, 3))
    disk.failing_sync = False
    written = disk.written
    with pytest.raises(StorageError, match="Input/output error"):
        store.persist(None, None, entries(4, 4))
    assert disk.written == written, "nothing is written behind what may be missing"


def test_a_full_disk_makes_the_store_refuse_all_that_follows():
    disk = FakeDisk()
    store = filled(disk, writes=2)
    disk.full = True
    with pytest.raises(StorageError, match="No space left on device"):
        store.persist(None, None, entries(3, 3))
    disk.full = False
    with pytest.raises(StorageError, match="No space left on device"):
        store.persist(None, None, entries(3, 3))
    store.close()
    reopened = DiskLogStore(disk.all_that_was_written())
    assert reopened.get_initial_state().entries == entries(1, 2), "the half that was written is a tear"


def test_a_disk_that_fills_up_at_a_roll_over():
    disk = FakeDisk()
    store = filled(disk, writes=0, segment_size=1)
    real_open = disk.open

    def refuse(name: str, *, truncate_to: int | None = None) -> object:
        raise OSError(28, "No space left on device")

    disk.open = refuse
    with pytest.raises(StorageError, match="No space left on device"):
        store.persist(None, None, entries(1, 1))
    disk.open = real_open
    found = DiskLogStore(disk.all_that_was_written()).get_initial_state()
    assert found.entries in ((), entries(1, 1))


class NoNextSegment(DiskDirectory):
    """A disk without room for a second segment, or one on which the end of the first cannot be synced."""

    def __init__(self, path, how: str) -> None:
        super().__init__(path, ahead=4096)
        self.how = how

    def open(self, name: str, *, truncate_to: int | None = None) -> DiskFile:
        if self.how == "no room" and name == "00000002.log":
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().open(name, truncate_to=truncate_to)


@pytest.mark.parametrize("how", ["no room", "failing sync"])
def test_a_log_whose_next_segment_cannot_be_begun_leaves_the_files_of_others_alone(how, tmp_path, monkeypatch):
    """Its file is closed by then, and another may have its number: a snapshot, a client's socket."""
    store = DiskLogStore(NoNextSegment(tmp_path / "log", how), segment_size=1)
    store.get_initial_state()
    if how == "failing sync":
        monkeypatch.setattr(os, "fsync", lambda fd: os.fstat(-1))
    with pytest.raises(StorageError, match=r"No space left on device|Bad file descriptor"):
        store.persist(None, None, entries(1, 1))
    monkeypatch.undo()
    others = [open(tmp_path / f"other{number}", "wb") for number in range(3)]  # noqa: SIM115
    for other in others:
        other.write(bytes(50_000))
        other.flush()
    store.close()
    assert [os.fstat(other.fileno()).st_size for other in others] == [50_000] * 3, "open, and as they were"
    for other in others:
        other.close()


@pytest.mark.parametrize(("method", "number"), [("read", 2), ("write_again", 3), ("open", 3), ("sync", 3)])
def test_a_segment_that_fails_at_the_start_is_named(method, number):
    disk = FakeDisk()
    writes = 0
    while len(disk.names()) < 3:
        disk, writes = FakeDisk(), writes + 1
        filled(disk, writes=writes, segment_size=200)
    calls = iter([True, False] if method == "read" else [False])
    real = getattr(disk, method)

    def failing(*arguments: object, **options: object) -> object:
        if next(calls):
            return real(*arguments, **options)
        raise OSError(errno.EIO, "Input/output error")

    setattr(disk, method, failing)
    with pytest.raises(
        StorageError, match=rf"^/disk/0000000{number}\.log: the log cannot be opened: .*Input/output error"
    ):
        DiskLogStore(disk, segment_size=200).get_initial_state()


def test_a_directory_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/data: the log cannot be opened: "):
        DiskLogStore(tmp_path / "file" / "data").get_initial_state()


# -- the real file system ---------------------------------------------------------------------------------------------


def test_closing_and_opening_again(tmp_path):
    store = DiskLogStore(tmp_path / "data")
    store.get_initial_state()
    store.persist(HardState(3, "n2"), None, entries(1, 2))
    store.close()
    store.close()
    again = DiskLogStore(tmp_path / "data")
    found = again.get_initial_state()
    assert (found.hard_state, found.entries) == (HardState(3, "n2"), entries(1, 2))
    again.close()


def test_a_torn_file_is_cut_before_it_is_written_to(tmp_path):
    store = DiskLogStore(tmp_path)
    store.get_initial_state()
    store.persist(None, None, entries(1, 2))
    store.close()
    segment = tmp_path / "00000001.log"
    sound = segment.read_bytes()
    segment.write_bytes(sound + sound[:20])
    DiskLogStore(tmp_path).get_initial_state()
    assert segment.read_bytes() == sound


def test_zeros_that_a_killed_process_left_are_the_end(tmp_path):
    store = DiskLogStore(tmp_path)
    store.get_initial_state()
    store.persist(HardState(1, "n1"), None, entries(1, 3))
    segment = tmp_path / "00000001.log"
    left = segment.read_bytes()
    store.close()
    sound = segment.read_bytes()
    assert left.startswith(sound + bytes(1000))
    segment.write_bytes(left)
    again = DiskLogStore(tmp_path)
    found = again.get_initial_state()
    assert (found.hard_state, found.entries) == (HardState(1, "n1"), entries(1, 3))
    assert segment.read_bytes() == sound
    again.close()


def test_no_zeros_are_left_in_a_segment_with_another_behind_it(tmp_path):
    store = DiskLogStore(tmp_path, segment_size=200)
    store.get_initial_state()
    for index in range(1, 31):
        store.persist(None, None, entries(index, index))
    *earlier, last = sorted(tmp_path.iterdir())
    assert len(earlier) > 3
    assert all(path.stat().st_size < 300 for path in earlier)
    assert last.stat().st_size >= 4096, "written ahead"
    store.close()
    assert last.stat().st_size < 300


def test_what_is_stored_is_private(tmp_path):
    store = DiskLogStore(tmp_path / "data")
    store.get_initial_state()
    store.close()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "00000001.log").stat().st_mode & 0o777 == 0o600


def test_a_new_directory_survives_a_power_failure(tmp_path, monkeypatch):
    """A node that voted and then finds no directory would vote again: the names of new directories are synced."""
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    store = DiskLogStore(tmp_path / "a" / "b")
    store.get_initial_state()
    store.close()
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= set(synced)


class Killed(BaseException):
    """SIGKILL."""


class NamesOnDisk:
    """Takes the place of `os.fsync`: which names of files and directories were synced. Kills after so many syncs."""

    def __init__(self, syncs: int) -> None:
        self.left: int | None = syncs
        self.names: set[Path] = set()
        self.fsync = os.fsync

    def __call__(self, fd: int) -> None:
        if self.left == 0:
            raise Killed
        if self.left is not None:
            self.left -= 1
        self.fsync(fd)
        place = Path(f"/proc/self/fd/{fd}").readlink()
        if place.is_dir():
            self.names.update(place.iterdir())


def test_a_directory_whose_maker_was_killed_survives_a_power_failure(tmp_path, monkeypatch):
    """Whoever comes next finds it, and cannot know whether its name was synced; so it is synced again."""
    for syncs in range(20):
        top = tmp_path / str(syncs)
        top.mkdir()
        on_disk = NamesOnDisk(syncs)
        monkeypatch.setattr(os, "fsync", on_disk)
        first = DiskLogStore(top / "a" / "b")
        with contextlib.suppress(Killed):
            first.get_initial_state()
        killed, on_disk.left = on_disk.left == 0, None
        first.close()
        second = DiskLogStore(top / "a" / "b")
        second.get_initial_state()
        second.close()
        assert {top / "a", top / "a" / "b", top / "a" / "b" / "00000001.log"} <= on_disk.names
        if not killed:
            assert syncs > 3
            return
    raise AssertionError("a start never comes to its end")


def test_a_directory_that_others_made_need_not_be_readable(tmp_path, monkeypatch):
    """Syncing it takes the permission to list it. Whoever has not got that has not made it either."""
    (tmp_path / "data").mkdir()
    real_open = os.open

    def refuse(path: object, flags: int, *more: int, **options: int) -> int:
        if path == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    store = DiskLogStore(tmp_path / "data")
    store.get_initial_state()
    store.close()


def test_a_second_process_is_refused(tmp_path):
    store = DiskLogStore(tmp_path)
    store.get_initial_state()
    code = (
        "import sys, pathlib\n"
        "from raftbed.nodes.storage import DiskLogStore, StorageError\n"
        "try: DiskLogStore(pathlib.Path(sys.argv[1])).get_initial_state()\n"
        "except StorageError as error: print(error)"
    )

    def other_process() -> str:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert other_process() == f"{tmp_path}: another process uses this directory.\n"
    store.close()
    assert other_process() == "", "the first one has let go"
