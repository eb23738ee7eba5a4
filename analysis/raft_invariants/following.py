"""Following one node through its trace: its log, what it had synced, and where records are missing.

What is known of the node (its log, what it committed, its role) follows from its records as long as none is missing.
A line that cannot be read, or a number left out, forgets all of it: from there on less is judged, and nothing wrongly.
A ``boot`` record begins anew, with what the disk held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from raftbed.analysis.raft_invariants.evidence import Evidence, Stay, Witness
from raftbed.analysis.raft_invariants.findings import pack
from raftbed.analysis.raft_invariants.logs import NOTHING_KNOWN, Run, cut, extend, term_at
from raftbed.analysis.raft_invariants.records import (
    Append,
    Boot,
    Durable,
    End,
    Foreign,
    Process,
    Record,
    Snapshot,
    TermRecord,
    Truncate,
)


@dataclass(slots=True)
class OnDisk:
    """What was synced, and must be there at the next start.

    Attributes:
        term, term_place: the latest term that is known to be durable, and the record that shows it.
        last, last_term, digest, place: the last entry likewise; its hash is 0 where it is not known.
        run: the log that it ends.
    """

    term: int = 0
    term_place: int = 0
    last: int = 0
    last_term: int = 0
    digest: int = 0
    place: int = 0
    run: Run | None = None


class FollowedNode:
    """Takes the records of one node.

    Parameters:
        name: of the node.
        number: of the node, for places.
        evidence: shared by all nodes.
    """

    def __init__(self, name: str, number: int, evidence: Evidence) -> None:
        self.name = name
        self.records = self.unreadable = self.boots = self.entries = 0
        self.is_whole = True  # as far as one can see; the end of a process that was killed may be missing
        self._first_place = pack(number, 0)
        self._evidence = evidence
        self._add = evidence.findings.add
        self._witness = evidence.witnesses[name] = Witness()
        self._led: dict[int, int] = {}  # term to the record of becoming its leader
        self._disk = OnDisk()
        self._before: list[Run | None] = []  # logs since the last sync: the disk may hold one of them
        self._unsettled: list[Stay] = []
        self._gap_from: int | None = 0
        self._next_seq: int | None = None
        self._term = 0
        self._term_place = 0
        self._ended = False
        self._has_begun = False  # a process of which nothing else is known
        self._handlers: dict[type[Record], Callable[[Any, int], None]] = {
            Append: self._append,
            Truncate: self._truncate,
            Durable: self._durable,
            Snapshot: self._snapshot,
        }
        self._last = -1
        self._forget()

    def _forget(self) -> None:
        """Know nothing of the node's state any more; -1 stands for that."""
        if self._last >= 0:
            self._before.append(self._run)
        self._run: Run | None = NOTHING_KNOWN
        self._last = self._synced = self._committed = self._applied = -1
        self._start_place = self._commit_place = 0
        self._grants: dict[int, tuple[str, int]] = {}  # in this process: term to whom, and where
        self._acks: dict[str, int] = {}
        self._acks_of = 0  # the term in which these are

    # -- records in general ---------------------------------------------------------------------------------------

    def take(self, line: int, record: Record | Foreign | None) -> None:
        """Take the next line; None: it could not be read."""
        if record is None:
            self.unreadable += 1
            self._lose()
            return
        self.records += 1
        seq = record.seq
        if isinstance(record, Process):
            self._next_seq = seq + 1 if seq >= 0 else None
            self._process()
            self._has_begun = True
            return
        if seq >= 0:
            if seq != self._next_seq and self._next_seq is not None:
                self._lose()
            self._next_seq = seq + 1
        if not isinstance(record, TermRecord):
            self._ended = isinstance(record, End)
            return
        place = self._first_place | line
        if isinstance(record, Boot):
            self._process()
            self._close_gap(record)
        if record.term != self._term:
            self._enter(record, place)
        elif self._gap_from is not None:
            self._close_gap(record)
        self._term_place = place
        self._ended = self._has_begun = False
        try:
            self._handlers[type(record)](record, place)
        except (ValueError, OverflowError):  # a hash that is none
            self.unreadable += 1
            self._lose()

    def finish(self) -> None:
        """That was the last line."""
        self._stay(self._term_place)
        if self._gap_from is not None or not self._ended or self._has_begun:
            self._witness.gaps.append((self._term if self._gap_from is None else self._gap_from, None))
        self._settle(-1)

    def _settle(self, durable: int) -> None:
        """How far the logs were synced of which that was not known yet; -1: nobody will know."""
        for stay in self._unsettled:
            stay.durable = min(durable, stay.last)
        self._unsettled.clear()

    def _lose(self) -> None:
        """Records are missing here."""
        self.is_whole = False
        self._settle(-1)
        self._forget()
        if self._gap_from is None:
            self._gap_from = self._term

    def _process(self) -> None:
        """Another process of the node begins; the one before may have lost its last records."""
        if self._gap_from is None and not self._ended:
            self._gap_from = self._term
        self._stay(self._term_place)
        self._forget()

    def _close_gap(self, record: TermRecord) -> None:
        """The first record after a place where some may be missing."""
        if self._gap_from is not None:
            pristine = isinstance(record, Boot) and record.term == record.last == 0
            if not isinstance(record, Boot):
                self.is_whole = False
            if not pristine:
                self._witness.gaps.append((self._gap_from, record.term))
            self._gap_from = None

    def _enter(self, record: TermRecord, place: int) -> None:
        """Another term than that of the record before."""
        if record.term < self._term and not isinstance(record, Boot) and self._gap_from is None:
            self._add(
                "monotonic",
                f"{self.name} went back from term {self._term} to term {record.term}, without a restart.",
                self._term_place,
                place,
            )
        self._stay(self._term_place)
        if self._gap_from is not None:
            self._close_gap(record)
        self._term = record.term

    def _stay(self, place: int) -> None:
        """Keep the log with which a term, or a process, is left."""
        if self._last < 0 and self._term in self._witness.stays:
            return
        stay = Stay(self._run, self._last, self._synced, place)
        self._witness.stays[self._term] = stay
        if 0 <= self._synced < self._last:
            self._unsettled.append(stay)

    # -- the log --------------------------------------------------------------------------------------------------

    def _run_on_disk(self, record: Boot, digest: int) -> Run | None:
        """The log that the disk holds, if one that was seen ends as it does."""
        if record.last == 0:
            return None
        for run in (self._disk.run, *self._before):
            known = cut(run, record.last)
            if (
                term_at(known, record.last) == record.last_term
                and self._evidence.entries.digest(known, record.last) == digest
            ):
                return known
        return (record.last, record.last_term, NOTHING_KNOWN) if record.last_term else NOTHING_KNOWN

    def _note_durable_term(self, term: int, place: int) -> None:
        if term > self._disk.term:
            self._disk.term, self._disk.term_place = term, place

    def _append(self, record: Append, place: int) -> None:
        first, last, terms = record.first, record.last, record.terms
        if len(terms) != last - first + 1 or len(record.hashes) != len(terms):
            self.unreadable += 1
            self._lose()
            return
        note, index = self._evidence.entries.note, first
        for term, text in zip(terms, record.hashes, strict=True):
            digest = int(text, 16)
            if note(index, term, digest, place) is not None:
                self._evidence.entry(self.name, index, term, digest, place)
            index += 1
        self.entries += len(terms)
        if self._last >= 0 and first != self._last + 1:  # what came between was not traced
            self._forget_log()
        if self._last < 0:
            self._run = NOTHING_KNOWN
        self._run, self._last = extend(self._run, first, terms), last

    def _forget_log(self) -> None:
        self._run, self._last, self._synced = NOTHING_KNOWN, -1, -1
        self._settle(-1)

    def _truncate(self, record: Truncate, place: int) -> None:
        index = record.index
        led = self._led.get(record.term)
        if led is not None and index:
            self._add(
                "leader-append-only",
                f"{self.name} dropped entries from {index} on in term {record.term}, which it leads.",
                led,
                place,
            )
        if self._last >= 0:
            self._before.append(self._run)
            self._run, self._last = cut(self._run, index - 1), index - 1
            self._synced = min(self._synced, self._last)
        disk = self._disk
        if disk.last >= index:
            disk.last = index - 1
            disk.last_term = term_at(disk.run, disk.last)
            disk.digest = self._evidence.entries.digest(disk.run, disk.last)
        for stay in self._unsettled:
            if stay.last >= index:
                stay.durable = -1
        self._unsettled = [stay for stay in self._unsettled if stay.durable >= 0]

    def _durable(self, record: Durable, place: int) -> None:
        index, digest = record.index, int(record.hash or "0", 16)
        self._note_durable_term(record.term, place)
        self._before.clear()
        if self._last >= 0:
            known = self._evidence.entries.digest(self._run, index) if index <= self._last else 0
            if index > self._last or (known and digest and known != digest):
                self._forget_log()
            else:
                self._synced = index
        disk = self._disk
        disk.run = self._run if self._last >= 0 else NOTHING_KNOWN
        disk.last, disk.last_term, disk.digest, disk.place = index, term_at(disk.run, index), digest, place
        self._settle(index)

    def _snapshot(self, record: Snapshot, place: int) -> None:
        """A snapshot was taken, or came from a leader and takes the place of the log up to its index."""
        index = record.index
        if not record.installed:
            return
        if record.hash:
            self._evidence.apply(self.name, index, index, int(record.hash, 16), NOTHING_KNOWN, place)
        if self._last < index:
            self._run, self._last, self._synced = NOTHING_KNOWN, index, index
        elif self._synced < index:
            self._synced = index
        self._committed = self._applied = index
        self._commit_place = place

    def _judge_disk(self, record: Boot, digest: int, place: int) -> None:
        """What was durable is there. An entry of the present term cannot have been cut off by a later leader."""
        disk = self._disk
        if not disk.last or disk.last_term != record.term or disk.last_term <= 0:
            return
        if record.last < disk.last:
            said = f"with {record.last} entries, although entry {disk.last} had been durable there"
        elif record.last == disk.last and disk.digest and digest and disk.digest != digest:
            said = f"with another entry {disk.last} than the one that had been durable there"
        else:
            return
        self._add("durability", f"{self.name} came back {said}.", disk.place, place)
