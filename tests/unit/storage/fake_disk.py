"""A disk that a test can cut off, fill up and make fail, behind the file interface of the log store.

It knows what was synced and what was only written. What is left after a power failure is the test's choice, within
what a real disk may do: everything that was synced, and any part of the rest.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field


class PowerFailure(Exception):
    """The machine is gone, in the middle of a write."""


@dataclass
class Content:
    """A file: its bytes, how many of them were synced, and whether its name was."""

    data: bytearray = field(default_factory=bytearray)
    synced: int = 0
    name_synced: bool = False
    closed: bool = True


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
        if self.disk.failing_sync:
            raise OSError(errno.EIO, "Input/output error")
        self.content.synced = len(self.content.data)
        self.disk.syncs += 1

    def close(self) -> None:
        self.content.closed = True


class FakeDisk:
    """Implements `raftbed.nodes.storage.files.Directory`.

    Attributes:
        power_for: bytes that can be written before the power fails; None: it does not.
        full: nothing more fits, though a part of the next write does.
        failing_sync: syncs fail.
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
            content.synced = truncate_to
        return FakeFile(self, content)

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        return bytes(self.files[name].data[offset : offset + size])

    def size(self, name: str) -> int:
        return len(self.files[name].data)

    def rename(self, old: str, new: str) -> None:
        """The new name is there after a power failure once the directory is synced; till then, the old one."""
        self.files[new] = self.files.pop(old)
        self.files[new].name_synced = False

    def remove(self, name: str) -> None:
        del self.files[name]

    def sync(self) -> None:
        for content in self.files.values():
            content.name_synced = True

    def path(self, name: str) -> str:
        return f"/disk/{name}"

    def close(self) -> None:
        pass

    # -- what is left after a power failure -----------------------------------------------------------------------

    def all_that_was_written(self) -> FakeDisk:
        return self._left({name: bytes(content.data) for name, content in self.files.items()})

    def only_what_was_synced(self) -> FakeDisk:
        kept = {name: content for name, content in self.files.items() if content.name_synced}
        return self._left({name: bytes(content.data[: content.synced]) for name, content in kept.items()})

    def the_last_write_with_a_hole(self, start: int, stop: int) -> FakeDisk:
        """What was not synced of each file reads as zeros from `start` to `stop`, as blocks that were not written."""
        left = {}
        for name, content in self.files.items():
            data = bytearray(content.data)
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
            left[name] = bytes(content.data[: content.synced] + kept[: len(loose)])
        return self._left(left)

    def _left(self, files: dict[str, bytes]) -> FakeDisk:
        for name in files:
            if not self.files[name].closed:
                files[name] += bytes(self.ahead)
        return FakeDisk(files, ahead=self.ahead)
