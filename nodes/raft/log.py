"""The replicated log in memory: entries, their sizes, a hash of every prefix, and the memberships among them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from raftbed.nodes.raft.messages import ConfigChange, Entry, MembershipConfig

_ENCODER = msgspec.msgpack.Encoder()
EMPTY_HASH = bytes(8)


class Log:
    """Entries 1 to `last_index`.

    Parameters:
        entries: what storage holds at start, without gaps from index 1.
    """

    def __init__(self, entries: Sequence[Entry] = ()) -> None:
        self._entries: list[Entry] = []
        self._hashes: list[bytes] = []
        self._ends: list[int] = []  # bytes of all entries up to and with this one, encoded
        self._memberships: list[tuple[int, MembershipConfig]] = []
        for entry in entries:
            self.append(entry)

    @property
    def last_index(self) -> int:
        """Index of the last entry, 0 for an empty log."""
        return len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry, 0 for an empty log."""
        return self._entries[-1].term if self._entries else 0

    def term(self, index: int) -> int:
        """Term of an entry; 0 for index 0. The entry must exist."""
        return self._entries[index - 1].term if index else 0

    def matches(self, index: int, term: int) -> bool:
        """The log has an entry at `index`, of that term. True for index 0: all logs agree before their beginning."""
        if index == 0:
            return term == 0
        return index <= self.last_index and self._entries[index - 1].term == term

    def slice(self, start: int, stop: int) -> tuple[Entry, ...]:
        """Entries start <= index < stop, as far as there are any."""
        return tuple(self._entries[start - 1 : stop - 1])

    def batch(self, start: int, count: int, size: int) -> tuple[Entry, ...]:
        """Entries from `start` on: at most `count` and at most `size` bytes of them, but one if there is any."""
        stop = bisect_right(self._ends, self.bytes_through(start - 1) + size, lo=start - 1)
        return self.slice(start, min(start + count, max(stop, start) + 1))

    def bytes_through(self, index: int) -> int:
        """Encoded size of all entries up to and with `index`."""
        return self._ends[index - 1] if index else 0

    def prefix_hash(self, index: int) -> str:
        """A hash of all entries up to and with `index`: equal on two nodes exactly when their prefixes are equal."""
        return self._hashes[index - 1].hex() if index else EMPTY_HASH.hex()

    def append(self, entry: Entry) -> None:
        """Append the next entry."""
        assert entry.index == self.last_index + 1, "a log has no gaps"
        before = self._hashes[-1] if self._hashes else EMPTY_HASH
        encoded = _ENCODER.encode(entry)
        self._hashes.append(blake2b(encoded, key=before, digest_size=8).digest())
        self._ends.append(self.bytes_through(self.last_index) + len(encoded))
        self._entries.append(entry)
        if isinstance(entry.payload, ConfigChange):
            self._memberships.append((entry.index, entry.payload.membership))

    def truncate(self, start: int) -> None:
        """Forget all entries from `start` on; memberships among them are no longer in force."""
        del self._entries[start - 1 :]
        del self._hashes[start - 1 :]
        del self._ends[start - 1 :]
        while self._memberships and self._memberships[-1][0] >= start:
            self._memberships.pop()

    def membership(self) -> MembershipConfig | None:
        """The latest membership in the log, committed or not; None where there is none."""
        return self._memberships[-1][1] if self._memberships else None

    def first_index_of_term(self, index: int) -> int:
        """The first index of the run of entries with the same term that `index` is in."""
        term = self.term(index)
        while index > 1 and self._entries[index - 2].term == term:
            index -= 1
        return index

    def last_index_of_term(self, term: int, at_most: int) -> int:
        """The last index, not beyond `at_most`, of an entry of `term`; 0 where there is none."""
        index = min(at_most, self.last_index)
        while index and self._entries[index - 1].term > term:
            index -= 1
        return index if index and self._entries[index - 1].term == term else 0
