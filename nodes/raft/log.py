"""The replicated log in memory: entries, their sizes, a hash of every prefix, and the memberships among them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from raftbed.nodes.raft.messages import BEGINNING, ConfigChange, Entry, LogBase, MembershipConfig

_ENCODER = msgspec.msgpack.Encoder()


class Log:
    """Entries `base.index + 1` to `last_index`. What lies before was compacted: it is in a snapshot, and committed.

    Parameters:
        entries: what storage holds at start, without gaps.
        base: what they follow.
        membership: in force at the snapshot, which is at `base` or among the entries.

    Attributes:
        base: what the entries follow.
        last_index: index of the last entry, 0 for a log in which nothing ever was.
        latest_membership: in the log, committed or not; None where there is none.
    """

    def __init__(
        self, entries: Sequence[Entry] = (), base: LogBase = BEGINNING, membership: MembershipConfig | None = None
    ) -> None:
        self.base = base
        self.last_index = base.index  # kept, because it is asked for at every turn
        self._base_membership = membership
        self._entries: list[Entry] = []
        self._hashes: list[bytes] = []
        self._ends: list[int] = []  # bytes of all entries up to and with this one, encoded, counted from some beginning
        self._dropped_bytes = 0  # of entries before the base
        self._memberships: list[tuple[int, MembershipConfig]] = []
        self.latest_membership = membership
        for entry in entries:
            self.append(entry)

    @property
    def last_term(self) -> int:
        """Term of the last entry, 0 for a log in which nothing ever was."""
        return self._entries[-1].term if self._entries else self.base.term

    def term(self, index: int) -> int:
        """Term of an entry that the log has, or follows; 0 for index 0."""
        place = index - self.base.index
        if place > 0:
            return self._entries[place - 1].term
        assert place == 0 or index == 0, f"entry {index} was compacted"
        return self.base.term if place == 0 else 0

    def matches(self, index: int, term: int) -> bool:
        """The log has an entry at `index`, of that term.

        True for index 0: all logs agree before their beginning. True too for what was compacted: it was committed, so
        every leader's log agrees there.
        """
        place = index - self.base.index
        if place > 0:
            return place <= len(self._entries) and self._entries[place - 1].term == term
        if index == 0:
            return term == 0
        return place < 0 or term == self.base.term

    def slice(self, start: int, stop: int) -> tuple[Entry, ...]:
        """Entries start <= index < stop, as far as there are any; none of them may be compacted."""
        first = self.base.index + 1
        assert start >= first, f"entry {start} was compacted"
        return tuple(self._entries[start - first : max(stop - first, 0)])

    def batch(self, start: int, count: int, size: int) -> tuple[Entry, ...]:
        """Entries from `start` on: at most `count` and at most `size` bytes of them, but one if there is any."""
        first = self.base.index + 1
        stop = first + bisect_right(self._ends, self.bytes_through(start - 1) + size, lo=start - first)
        return self.slice(start, min(start + count, max(stop, start + 1)))

    def bytes_through(self, index: int) -> int:
        """Encoded size of all entries up to and with `index`; only differences of two mean something."""
        place = index - self.base.index
        return self._ends[place - 1] if place > 0 else self._dropped_bytes

    def prefix_hash(self, index: int) -> str:
        """A hash of all entries up to and with `index`: equal on two nodes exactly when their prefixes are equal.

        "" for a place before the base: it was forgotten.
        """
        place = index - self.base.index
        if place > 0:
            return self._hashes[place - 1].hex()
        return self.base.hash if place == 0 else ""

    def hashes_from(self, start: int) -> list[str]:
        """What `prefix_hash` says of each entry from `start` on."""
        return [digest.hex() for digest in self._hashes[start - self.base.index - 1 :]]

    def terms_from(self, start: int) -> list[int]:
        """The term of each entry from `start` on."""
        return [entry.term for entry in self._entries[start - self.base.index - 1 :]]

    def append(self, entry: Entry) -> None:
        """Append the next entry."""
        assert entry.index == self.last_index + 1, "a log has no gaps"
        encoded = _ENCODER.encode(entry)
        if self._entries:
            before, end = self._hashes[-1], self._ends[-1]
        else:
            before, end = bytes.fromhex(self.base.hash), self._dropped_bytes
        self._hashes.append(blake2b(encoded, key=before, digest_size=8).digest())
        self._ends.append(end + len(encoded))
        self._entries.append(entry)
        self.last_index = entry.index
        if isinstance(entry.payload, ConfigChange):
            self._memberships.append((entry.index, entry.payload.membership))
            self.latest_membership = entry.payload.membership

    def truncate(self, start: int) -> None:
        """Forget all entries from `start` on; memberships among them are no longer in force."""
        place = start - self.base.index - 1
        assert place >= 0, "what was compacted was committed"
        del self._entries[place:]
        del self._hashes[place:]
        del self._ends[place:]
        self.last_index = self.base.index + len(self._entries)
        while self._memberships and self._memberships[-1][0] >= start:
            self._memberships.pop()
        self.latest_membership = self._memberships[-1][1] if self._memberships else self._base_membership

    def base_at(self, index: int) -> LogBase:
        """The base of a log that begins after `index`."""
        return LogBase(index, self.term(index), self.prefix_hash(index))

    def compact(self, index: int) -> None:
        """Forget all entries up to and with `index`, which the log has and a snapshot includes."""
        self._base_membership = self.membership_at(index)
        base, count = self.base_at(index), index - self.base.index
        self._dropped_bytes = self.bytes_through(index)
        del self._entries[:count]
        del self._hashes[:count]
        del self._ends[:count]
        self._memberships = [(at, membership) for at, membership in self._memberships if at > index]
        self.base = base

    def membership(self) -> MembershipConfig | None:
        """The latest membership in the log, committed or not; None where there is none."""
        return self.latest_membership

    @property
    def membership_index(self) -> int:
        """The entry that the latest membership is in; the base, when it was compacted."""
        return self._memberships[-1][0] if self._memberships else self.base.index

    def membership_at(self, index: int) -> MembershipConfig | None:
        """The membership that is in force for who has the log up to `index`."""
        found = self._base_membership
        for at, membership in self._memberships:
            if at <= index:
                found = membership
        return found

    def is_voter_since(self, node: str, index: int) -> bool:
        """`node` is a voter in the membership that is in force at `index`, or in one after it."""
        later = [membership for at, membership in self._memberships if at > index]
        return any(membership.is_voter(node) for membership in (self.membership_at(index), *later) if membership)

    def first_index_of_term(self, index: int) -> int:
        """The first index, of those in the log, of the run of entries with the same term that `index` is in."""
        term, first = self.term(index), self.base.index + 1
        while index > first and self._entries[index - first - 1].term == term:
            index -= 1
        return index

    def last_index_of_term(self, term: int, at_most: int) -> int:
        """The last index, not beyond `at_most`, of an entry of `term`; 0 where the log knows of none."""
        index, first = min(at_most, self.last_index), self.base.index
        while index > first and self._entries[index - first - 1].term > term:
            index -= 1
        return index if index >= first and self.term(index) == term else 0
