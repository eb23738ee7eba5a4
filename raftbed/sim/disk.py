"""A simulated disk behind the file interface of the log store.

It knows what was synced and what was only written. A sync takes time: what `sync` promises is counted as kept only once
the node has been told so (`commit`). A power failure keeps everything that was synced, and of the rest any part that a
real disk may keep: nothing, all, a beginning that ends within a record, or a later part without an earlier one.
A killed process loses nothing that it had written; a write under way may have come to any point.

A disk that is broken takes what is written into the machine's memory, and fails the sync. After that it is as on Linux:
what the sync could not write can be read as before, no later sync writes it, and a power failure takes it.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from random import Random

_SYNC = (200_000, 1_200_000)  # nanoseconds that a sync takes
_SLOW_SYNC = 0.01  # share of syncs that take ten times as long
_LONGEST_SYNC = 1_500_000_000  # of a slow disk; longer ones would outlast the fault, and be taken for a dead node


def sync_time(random: Random, factor: float | None) -> int:
    """How long a sync takes, in nanoseconds; `factor`: times as long on a slow disk."""
    time = random.randint(*_SYNC)
    if random.random() < _SLOW_SYNC:
        time *= 10
    return time if factor is None else min(int(time * factor), _LONGEST_SYNC)


@dataclass(slots=True)
class _Content:
    data: bytearray = field(default_factory=bytearray)
    synced: int = 0
    name_synced: bool = False
    lost: list[tuple[int, int]] = field(default_factory=list)  # from, to: of what is synced, on no disk

    def sync_failed(self) -> None:
        """What was to be synced is taken for synced."""
        if self.synced < len(self.data):
            self.lost.append((self.synced, len(self.data)))
            self.synced = len(self.data)

    def rewritten(self, start: int, stop: int) -> None:
        """What is there was written again."""
        kept = [piece for begin, end in self.lost for piece in ((begin, min(end, start)), (max(begin, stop), end))]
        self.lost = [(begin, end) for begin, end in kept if begin < end]


class SimulatedFile:
    """Implements `raftbed.nodes.storage.files.File`."""

    __slots__ = ("_content", "_disk", "_name")

    def __init__(self, disk: SimulatedDisk, name: str, content: _Content) -> None:
        self._disk, self._name, self._content = disk, name, content

    def append(self, data: bytes) -> None:
        """See `File`."""
        disk = self._disk
        if disk.full:
            disk.changes(self._name, self._content)
            self._content.data += data[: len(data) // 2]
            raise _error(errno.ENOSPC)
        self._disk.changes(self._name, self._content)
        self._content.data += data

    def sync(self) -> None:
        """See `File`."""
        disk = self._disk
        if disk.broken:
            self._content.sync_failed()
            raise _error(errno.EIO)
        disk.syncs += 1
        disk.commit()  # what was asked for before had come to its end when this one was asked for
        disk.under_way.append((self._content, len(self._content.data)))

    def close(self) -> None:
        """See `File`."""


class SimulatedDisk:
    """Implements `raftbed.nodes.storage.files.Directory`; outlives the node's processes.

    Parameters:
        random: drawn from for what a failure leaves.

    Attributes:
        full: nothing more fits, though a part of the next write does.
        broken: reads and syncs fail.
        syncs: that were asked for so far.
        under_way: what syncs have promised since the last `commit`.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._files: dict[str, _Content] = {}
        self._marks: dict[str, int] = {}
        self.full = False
        self.broken = False
        self.syncs = 0
        self.under_way: list[tuple[_Content, int]] = []

    # -- Directory ----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """See `Directory`."""
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        """See `Directory`."""
        if self.broken:
            raise _error(errno.EIO)
        return bytes(self._files[name].data)

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """Part of the content of a file."""
        return self.read(name)[offset : offset + size]

    def size(self, name: str) -> int:
        """How many bytes a file has."""
        return len(self._files[name].data)

    def open(self, name: str, *, truncate_to: int | None = None) -> SimulatedFile:
        """See `Directory`."""
        if self.broken:
            raise _error(errno.EIO)
        content = self._files.setdefault(name, _Content())
        if truncate_to is not None:
            del content.data[truncate_to:]
            content.synced = len(content.data)
            if content.lost:
                content.rewritten(truncate_to, max(end for _, end in content.lost))
        return SimulatedFile(self, name, content)

    def write_again(self, name: str, offset: int, data: bytes) -> None:
        """See `Directory`."""
        if self.broken:
            raise _error(errno.EIO)
        content = self._files[name]
        content.rewritten(offset, offset + len(data))
        content.synced = max(content.synced, offset + len(data))

    def remove(self, name: str) -> None:
        """Durable at once. What replaces the file has been synced; a write under way in another file has not been."""
        if self._files.pop(name, None) is None:
            raise _error(errno.ENOENT)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what had that name."""
        self.commit()
        self._files[new] = self._files.pop(old)

    def sync(self) -> None:
        """See `Directory`."""
        if self.broken:
            raise _error(errno.EIO)
        for content in self._files.values():
            content.name_synced = True

    def path(self, name: str) -> str:
        """See `Directory`."""
        return f"disk/{name}"

    def close(self) -> None:
        """See `Directory`."""

    # -- what happens to it -------------------------------------------------------------------------------------------

    def mark(self) -> None:
        """A write begins: what a kill may cut short is what comes from here on."""
        self._marks.clear()

    def changes(self, name: str, content: _Content) -> None:
        """A file is about to be appended to: keep in mind how long it was when the write began."""
        if name not in self._marks:
            self._marks[name] = len(content.data)

    def commit(self) -> None:
        """The syncs that were asked for have come to their end: what they promised is kept."""
        for content, length in self.under_way:
            if length > content.synced:
                content.synced = length
        self.under_way.clear()

    @property
    def unsynced(self) -> int:
        """Bytes that a power failure may take."""
        count = 0
        for content in self._files.values():
            count += len(content.data) - content.synced
        return count

    def kill(self, writing: bool) -> None:
        """The process is gone; a write under way may have come to any point since `mark`."""
        self.under_way.clear()
        if not writing:
            return
        for name, content in self._files.items():
            begun = max(self._marks.get(name, len(content.data)), content.synced)
            if len(content.data) > begun and self._random.random() < 0.5:
                del content.data[self._random.randint(begun, len(content.data)) :]

    def fail_power(self) -> dict[str, int]:
        """The machine is gone: returns how many bytes were lost of each file."""
        self.under_way.clear()
        lost: dict[str, int] = {}
        for name in list(self._files):
            content = self._files[name]
            if not content.name_synced and content.synced == 0 and self._random.random() < 0.5:
                lost[name] = len(content.data)
                del self._files[name]
                continue
            before = len(content.data)
            self._tear(content)
            gone = before - len(content.data)
            for start, stop in content.lost:
                content.data[start:stop] = bytes(stop - start)
                gone += stop - start
            content.lost.clear()
            if gone:
                lost[name] = gone
            content.synced, content.name_synced = len(content.data), True
        return lost

    def _tear(self, content: _Content) -> None:
        loose = len(content.data) - content.synced
        if not loose:
            return
        kept = self._random.choice(("nothing", "all", "beginning", "end"))
        if kept == "nothing":
            del content.data[content.synced :]
        elif kept == "beginning":
            del content.data[content.synced + self._random.randrange(loose) :]
        elif kept == "end":  # pages reach the disk in any order: what was not written reads as zeros
            hole = content.synced + self._random.randrange(loose) + 1
            content.data[content.synced : hole] = bytes(hole - content.synced)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
