"""Files on a real file system: zeros are written ahead, so that a sync needs to write nothing but what was appended."""

from __future__ import annotations

import errno
import os

import pytest

from raftbed.nodes.storage.files import WRITTEN_AHEAD, DiskDirectory

PIECE = b"x" * 3000


@pytest.fixture
def directory(tmp_path):
    directory = DiskDirectory(tmp_path, ahead=WRITTEN_AHEAD)
    yield directory
    directory.close()


def test_appending_does_not_change_size_or_blocks(directory, tmp_path):
    """That is what spares each sync a commit of the file system's journal."""
    file = directory.open("log")
    file.append(PIECE)
    file.sync()
    before = os.stat(tmp_path / "log")
    for _ in range(10):
        file.append(PIECE)
        file.sync()
    after = os.stat(tmp_path / "log")
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks)
    assert before.st_blocks * 512 >= before.st_size, "the blocks are written: none is a hole"
    assert directory.read("log") == 11 * PIECE + bytes(after.st_size - 11 * len(PIECE))
    file.close()


def test_closing_cuts_the_zeros_off(directory):
    file = directory.open("log")
    file.append(PIECE)
    file.close()
    assert directory.read("log") == PIECE


def test_closing_twice_closes_nothing_of_others(directory, tmp_path):
    file = directory.open("log")
    file.append(PIECE)
    file.close()
    with open(tmp_path / "other", "wb") as other:
        file.close()
        os.fstat(other.fileno())


@pytest.mark.parametrize("truncate_to", [None, 0])
def test_a_file_that_cannot_be_opened_is_not_left_open(directory, monkeypatch, truncate_to):
    before = os.listdir("/proc/self/fd")
    for function in ("fsync", "fstat"):
        monkeypatch.setattr(os, function, lambda fd: os.stat("/there/is/none"))
    with pytest.raises(OSError, match="No such file"):
        directory.open("log", truncate_to=truncate_to)
    monkeypatch.undo()
    assert os.listdir("/proc/self/fd") == before


def test_a_small_file_has_few_zeros_and_a_large_one_a_bounded_number(directory):
    file = directory.open("log")
    file.append(PIECE)
    assert directory.size("log") < 80 << 10
    for count in range(2, 1001):
        file.append(PIECE)
        assert directory.size("log") <= count * len(PIECE) + WRITTEN_AHEAD + 4096
    assert directory.size("log") > 3 * WRITTEN_AHEAD
    file.close()
    assert directory.size("log") == 1000 * len(PIECE)


def test_a_file_that_is_opened_again_goes_on_at_its_end(directory):
    file = directory.open("log")
    file.append(b"one")
    file.close()
    file = directory.open("log")
    file.append(b"two")
    file.close()
    file = directory.open("log", truncate_to=4)
    file.append(b"three")
    file.close()
    assert directory.read("log") == b"onetthree"


def test_writing_again_changes_nothing_and_syncs(directory, tmp_path, monkeypatch):
    file = directory.open("log")
    file.append(b"one")
    file.append(b"two")
    file.close()
    asked = []
    pwrite, fsync = os.pwrite, os.fsync
    monkeypatch.setattr(
        os, "pwrite", lambda fd, data, offset: (asked.append((bytes(data), offset)), pwrite(fd, data, offset))[1]
    )
    monkeypatch.setattr(os, "fsync", lambda fd: (asked.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    directory.write_again("log", 3, b"two")
    assert asked == [(b"two", 3), str(tmp_path / "log")]
    assert directory.read("log") == b"onetwo"


def test_without_zeros_ahead_a_file_has_what_was_appended(tmp_path):
    directory = DiskDirectory(tmp_path)
    file = directory.open("snapshot")
    file.append(PIECE)
    assert directory.read("snapshot") == PIECE
    file.close()
    directory.close()


@pytest.mark.parametrize("room", [0, 5000], ids=["no room", "room for some zeros"])
def test_where_there_is_no_room_for_zeros_appending_goes_on(directory, monkeypatch, room):
    """The last room on a disk is for the log, not for zeros."""
    pwrite = os.pwrite
    left = [room]

    def full(fd: int, data: bytes, offset: int) -> int:
        if bytes(data[:1]) != b"\0":
            return pwrite(fd, data, offset)
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        size = min(left[0], len(data))
        left[0] -= size
        return pwrite(fd, data[:size], offset)

    monkeypatch.setattr(os, "pwrite", full)
    file = directory.open("log")
    for count in (1, 2, 3):
        file.append(PIECE)
        file.sync()
        assert directory.read("log") == count * PIECE
    file.close()
    assert directory.read("log") == 3 * PIECE


def test_another_failure_to_write_zeros_is_a_failure(directory, monkeypatch):
    pwrite = os.pwrite

    def broken(fd: int, data: bytes, offset: int) -> int:
        if bytes(data[:1]) == b"\0":
            raise OSError(errno.EIO, "Input/output error")
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", broken)
    file = directory.open("log")
    with pytest.raises(OSError, match="Input/output error"):
        file.append(PIECE)
    file.close()
