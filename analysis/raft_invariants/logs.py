"""Logs as a trace shows them, small enough to remember every state that matters.

A log is a chain of runs, each of entries of one term: ``(first index, term, the runs before)``. Appending puts a run
in front, truncating takes runs off, and an older state is kept by keeping its chain: chains share what they have in
common. What is not known (the beginning of the trace was lost) is a run of term `UNKNOWN`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence

Run = tuple[int, int, "Run | None"]
UNKNOWN = -1
NOTHING_KNOWN: Run = (0, UNKNOWN, None)
_PAGE_BITS = 10
_PAGE = 1 << _PAGE_BITS
_MASK = _PAGE - 1


def term_at(run: Run | None, index: int) -> int:
    """Term of the entry at `index` of a log that has one there; 0 before its beginning, `UNKNOWN` if not known."""
    while run is not None and run[0] > index:
        run = run[2]
    return run[1] if run is not None and index else 0


def cut(run: Run | None, last: int) -> Run | None:
    """The log without the entries behind `last`."""
    while run is not None and run[0] > last:
        run = run[2]
    return run


def extend(run: Run | None, first: int, terms: Sequence[int]) -> Run | None:
    """The log with entries of these terms from `first` on, which is where it ended."""
    latest = run[1] if run is not None else 0
    for index, term in enumerate(terms, first):
        if term != latest:
            run, latest = (index, term, run), term
    return run


class EntryTable:
    """Every entry that any trace showed: (index, term) to the hash of the prefix it ends, and where it was seen first.

    Indexes are dense, and nearly all have entries of one term only: arrays take 24 bytes for each, other terms of the
    same index go to a dictionary.
    """

    def __init__(self) -> None:
        self._pages: dict[int, tuple[array[int], array[int], array[int]]] = {}
        self._others: dict[tuple[int, int], tuple[int, int]] = {}
        self.count = 0

    def note(self, index: int, term: int, digest: int, place: int) -> int | None:
        """Remember an entry; if it was seen before with another hash, returns the place of that."""
        page = self._pages.get(index >> _PAGE_BITS)
        if page is None:
            page = self._pages[index >> _PAGE_BITS] = (_empty_page(), _empty_page(), _empty_page())
        slot = index & _MASK
        terms, digests, places = page
        known = terms[slot]
        if known == term:
            return None if digests[slot] == digest else places[slot]
        if known == 0:
            terms[slot], digests[slot], places[slot] = term, digest, place
            self.count += 1
            return None
        other = self._others.get((index, term))
        if other is None:
            self._others[index, term] = (digest, place)
            self.count += 1
            return None
        return None if other[0] == digest else other[1]

    def find(self, index: int, term: int) -> int:
        """The hash of the prefix that ends with this entry; 0 where it is not known."""
        page = self._pages.get(index >> _PAGE_BITS)
        if page is not None and page[0][index & _MASK] == term:
            return page[1][index & _MASK]
        other = self._others.get((index, term))
        return other[0] if other is not None else 0

    def digest(self, run: Run | None, index: int) -> int:
        """The hash of a log's prefix up to `index`, which it must have; 0 where it is not known."""
        term = term_at(run, index)
        return self.find(index, term) if term > 0 else 0


class AppliedChain:
    """What was applied at each index, by whoever came first: the one history that all state machines share."""

    def __init__(self) -> None:
        self._pages: dict[int, array[int]] = {}
        self._lasts = array("Q")
        self._places = array("Q")

    def find(self, index: int) -> int:
        """The hash of the prefix that was applied up to `index`; 0 where it is not known."""
        page = self._pages.get(index >> _PAGE_BITS)
        return page[index & _MASK] if page is not None else 0

    def set(self, index: int, digest: int) -> None:
        """Note what was applied at `index`, unless something was noted before."""
        page = self._pages.get(index >> _PAGE_BITS)
        if page is None:
            page = self._pages[index >> _PAGE_BITS] = _empty_page()
        if not page[index & _MASK]:
            page[index & _MASK] = digest

    def reached(self, last: int, place: int) -> None:
        """A record at `place` applied up to `last`."""
        if not self._lasts or last > self._lasts[-1]:
            self._lasts.append(last)
            self._places.append(place)

    def place(self, index: int) -> int:
        """Place of the record that applied `index` first."""
        at = bisect_left(self._lasts, index)
        return self._places[min(at, len(self._places) - 1)]


def _empty_page() -> array[int]:
    return array("Q", bytes(8 * _PAGE))
