"""Reading traces: lines to records, whatever is torn, foreign or endless among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import msgspec

MOST = (1 << 62) - 1
LONGEST_LINE = 64 << 20
_CHUNK = 1 << 20
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
Hash = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{0,16}\Z")]  # of digits alone: int() would take signs and more


Term = Annotated[int, msgspec.Meta(ge=1, le=MOST)]


class Record(msgspec.Struct, gc=False, tag_field="event", tag=str.lower):
    """A line of a trace. The kinds of records, their fields and when they are written are in docs/node.md.

    Attributes:
        seq: its number within its process, from 0; -1 where it has none, and losses cannot be noticed.
    """

    seq: Annotated[int, msgspec.Meta(ge=-1, le=MOST)] = -1


class Process(Record, gc=False):
    """A process of the node begins."""


class End(Record, gc=False):
    """It ends, and everything that it did was traced."""


class TermRecord(Record, gc=False, kw_only=True):
    """What has a term: the node's, at that moment."""

    term: Count


class Boot(TermRecord, gc=False, kw_only=True):
    """What the disk held when the node started."""

    voted_for: str | None
    last: Count
    last_term: Count
    hash: Hash
    snapshot: Count = 0


class Role(TermRecord, gc=False, kw_only=True):
    """Role, term or leader changed; with a proof of its election if the node itself leads now."""

    role: str
    leader: str | None
    votes: list[str] = []
    voters: list[list[str]] = []
    last: Count = 0
    hash: Hash = ""


class Grant(TermRecord, gc=False, kw_only=True):
    """A vote is about to be given."""

    candidate: str


class Vote(TermRecord, gc=False, kw_only=True):
    """A vote is durable."""

    candidate: str


class Append(TermRecord, gc=False, kw_only=True):
    """Entries were appended in memory."""

    first: Term
    last: Term
    terms: list[Term]
    hashes: list[Hash]


class Truncate(TermRecord, gc=False, kw_only=True):
    """Entries from `index` on were dropped."""

    index: Term


class Durable(TermRecord, gc=False, kw_only=True):
    """The log is durable up to `index`."""

    index: Count
    hash: Hash


class Commit(TermRecord, gc=False, kw_only=True):
    """Known to be committed; `acks`: how far a leader counted each voter, for each set of voters."""

    index: Term
    hash: Hash
    acks: list[dict[str, Count]] = []


class Apply(TermRecord, gc=False, kw_only=True):
    """Given to the state machine."""

    first: Term
    last: Term
    hash: Hash


class Snapshot(TermRecord, gc=False, kw_only=True):
    """A snapshot was taken, or `installed`: it came from a leader."""

    index: Count
    hash: Hash
    installed: bool = False


AnyRecord = Process | End | Boot | Role | Grant | Vote | Append | Truncate | Durable | Commit | Apply | Snapshot
_EVENTS = {kind.__name__.lower() for kind in get_args(AnyRecord)}


class Foreign(msgspec.Struct):
    """A record of a kind that is not judged: of a later version."""

    event: str
    seq: int = -1


def taken_records(trace: Sequence[Mapping[str, Any]] | None) -> Sequence[Record] | None:
    """What `read_trace` would read if these were written down; None: they are not at hand, or not all are records."""
    if trace is None:
        return None
    try:
        return msgspec.convert(trace, list[AnyRecord])
    except msgspec.ValidationError:
        return None


def read_trace(path: Path) -> Iterator[tuple[int, Record | Foreign | None]]:
    """The records of a file with their line numbers, from 1; None for a line that is no record.

    Raises:
        OSError: the file cannot be read (any further).
    """
    decode = msgspec.json.Decoder(AnyRecord).decode
    for number, line in enumerate(_lines(path), 1):
        try:
            yield number, decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield number, _foreign(line)


def _foreign(line: bytes) -> Foreign | None:
    try:
        record = msgspec.json.decode(line, type=Foreign)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return record if record.event not in _EVENTS else None


def _lines(path: Path) -> Iterator[bytes]:
    """Lines without their ends; of one that is longer than any record, only that it was there."""
    with path.open("rb") as stream:
        rest = b""
        overlong = False
        while chunk := stream.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            if lines and overlong:
                lines[0], overlong = b"", False
            yield from lines
            if len(rest) > LONGEST_LINE:
                rest, overlong = b"", True
        if rest or overlong:
            yield b"" if overlong else rest


def line_of(path: Path, number: int, *, most: int = 600) -> str:
    """The text of a line, for people: at most `most` characters of it; "" where it cannot be read."""
    try:
        for count, line in enumerate(_lines(path), 1):
            if count == number:
                text = line.decode(errors="replace")
                return text if len(text) <= most else text[: most - 3] + "..."
    except OSError:
        pass
    return ""
