"""A disk that a test can cut off, fill up and make fail, behind the file interface of the log store.

It knows what was synced and what was only written. What is left after a power failure is the test's choice, within
what a real disk may do: everything that was synced, and any part of the rest.

What is read comes from the system's memory. When a sync fails, Linux takes for written what it could not write: it can
be read as before, later syncs succeed and do not write it, and a power failure takes it.
"""

from __future__ import annotations

import copy
import errno
from dataclasses import dataclass, field


class PowerFailure(Exception):
    """The machine is gone, in the middle of a write."""


@dataclass
class Content:
    """A file as the system's memory has it.

    Attributes:
        data: its bytes.
        synced: how many of them need no sync any more.
        name_synced: its name needs none.
        closed: nobody writes to it.
        lost: which of the bytes that need no sync are on no disk, because the sync failed.
    """

    data: bytearray = field(default_factory=bytearray)
    synced: int = 0
    name_synced: bool = False
    closed: bool = True
    lost: set[int] = field(default_factory=set)

    def on_disk(self) -> bytearray:
        """Its bytes, as they are on disk once everything is written that still can be."""
        data = bytearray(self.data)
        for offset in self.lost:
            data[offset] = 0
        return data


class FakeFile:
    """Implements `raftbed.nodes.storage.files.File`."""

    def __init__(self, disk: FakeDisk, content: Content) -> None:
        self.disk, self.content = disk, content
        content.closed = False

    def append(self, data: bytes) -> None:
        disk = self.disk
        if disk.full:
            self.content.data += data[: len(data) // 2]
            raise OSError(errno.ENOSPC, "No space left on device")
        room = len(data) if disk.power_for is None else disk.power_for - disk.written
        self.content.data += data[:room]
        disk.written += min(room, len(data))
        if room < len(data):
            raise PowerFailure

    def sync(self) -> None:
        self.disk.sync_content(self.content)
        self.disk.syncs += 1

    def close(self) -> None:
        """Where zeros were written ahead, they are cut off, which takes a sync."""
        self.content.closed = True
        if self.disk.ahead and self.disk.sync_fails():
            self.content.data += bytes(self.disk.ahead)
            raise OSError(errno.EIO, "Input/output error")


class FakeDisk:
    """Implements `raftbed.nodes.storage.files.Directory`.

    Attributes:
        power_for: bytes that can be written before the power fails; None: it does not.
        full: nothing more fits, though a part of the next write does.
        failing_sync: syncs fail.
        syncs_left: how many succeed before they begin to fail; None: any number.
        reaches: what of the bytes of which the sync fails is written all the same, from and to.
        written: bytes so far.
        syncs: of files so far.
        ahead: zeros that are written ahead in a file that is written to: a power failure leaves them behind the rest.
    """

    def __init__(self, files: dict[str, bytes] | None = None, *, power_for: int | None = None, ahead: int = 0) -> None:
        self.files = {name: Content(bytearray(data), len(data), True) for name, data in (files or {}).items()}
        self.power_for = power_for
        self.ahead = ahead
        self.full = False
        self.failing_sync = False
        self.syncs_left: int | None = None
        self.reaches = (0, 0)
        self.written = 0
        self.syncs = 0

    def names(self) -> list[str]:
        return sorted(self.files)

    def read(self, name: str) -> bytes:
        return bytes(self.files[name].data)

    def open(self, name: str, *, truncate_to: int | None = None) -> FakeFile:
        content = self.files.setdefault(name, Content())
        if truncate_to is not None:
            del content.data[truncate_to:]
            content.synced = min(content.synced, truncate_to)
            content.lost = {offset for offset in content.lost if offset < truncate_to}
            self.sync_content(content)
        return FakeFile(self, content)

    def write_again(self, name: str, offset: int, data: bytes) -> None:
        content = self.files[name]
        assert content.data[offset : offset + len(data)] == data, "nothing else is written than what is there"
        room = len(data) if self.power_for is None else self.power_for - self.written
        self.written += min(room, len(data))
        if room < len(data):
            content.lost -= set(range(offset, offset + room))
            raise PowerFailure
        self.sync_content(content)
        content.lost -= set(range(offset, offset + len(data)))

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        return bytes(self.files[name].data[offset : offset + size])

    def size(self, name: str) -> int:
        return len(self.files[name].data)

    def rename(self, old: str, new: str) -> None:
        """The new name is there after a power failure once the directory is synced; till then, the old one."""
        self.files[new] = self.files.pop(old)
        self.files[new].name_synced = False

    def remove(self, name: str) -> None:
        if self.files.pop(name, None) is None:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)

    def sync(self) -> None:
        if self.sync_fails():
            raise OSError(errno.EIO, "Input/output error")
        for content in self.files.values():
            content.name_synced = True

    def sync_fails(self) -> bool:
        """Whether the sync that is asked for now does."""
        if self.syncs_left is not None:
            self.syncs_left -= 1
            self.failing_sync = self.failing_sync or self.syncs_left < 0
        return self.failing_sync

    def sync_content(self, content: Content) -> None:
        """Write what was not written of a file; when that fails, it is taken for written."""
        unsynced, content.synced = content.synced, len(content.data)
        if self.sync_fails():
            start, stop = self.reaches
            content.lost |= set(range(unsynced, content.synced)) - set(range(unsynced + start, unsynced + stop))
            raise OSError(errno.EIO, "Input/output error")

    def works_again(self) -> None:
        """Syncs succeed from now on."""
        self.failing_sync, self.syncs_left = False, None

    def path(self, name: str) -> str:
        return f"/disk/{name}"

    def close(self) -> None:
        pass

    def copy(self) -> FakeDisk:
        """The same disk, to try something on it."""
        return copy.deepcopy(self)

    # -- what is left after a power failure -----------------------------------------------------------------------

    def all_that_was_written(self) -> FakeDisk:
        return self._left({name: bytes(content.on_disk()) for name, content in self.files.items()})

    def only_what_was_synced(self) -> FakeDisk:
        kept = {name: content for name, content in self.files.items() if content.name_synced}
        return self._left({name: bytes(content.on_disk()[: content.synced]) for name, content in kept.items()})

    def the_last_write_with_a_hole(self, start: int, stop: int) -> FakeDisk:
        """What was not synced of each file reads as zeros from `start` to `stop`, as blocks that were not written."""
        left = {}
        for name, content in self.files.items():
            data = content.on_disk()
            for offset in range(content.synced + start, min(content.synced + stop, len(data))):
                data[offset] = 0
            left[name] = bytes(data)
        return self._left(left)

    def only_a_part_of_the_last_write(self, start: int, stop: int) -> FakeDisk:
        """What was not synced of each file reads as zeros, but from `start` to `stop`."""
        left = {}
        for name, content in self.files.items():
            loose = content.data[content.synced :]
            kept = bytes(start) + loose[start:stop] + bytes(max(len(loose) - stop, 0))
            left[name] = bytes(content.on_disk()[: content.synced] + kept[: len(loose)])
        return self._left(left)

    def _left(self, files: dict[str, bytes]) -> FakeDisk:
        for name in files:
            if not self.files[name].closed:
                files[name] += bytes(self.ahead)
        return FakeDisk(files, ahead=self.ahead)
