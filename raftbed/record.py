"""Histories and other JSON Lines files: appended as things happen, readable whatever cut the writing off.

The history format (schema ``raftbed.history/1``) is one JSON object per line, one line per event; see
docs/formats.md. An optional first line ``{"schema": ..., ...}`` carries metadata.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec

from raftbed.errors import HistoryError
from raftbed.model import Op

HISTORY_SCHEMA = "raftbed.history/1"

_OP_DECODER = msgspec.json.Decoder(Op)
_ANY_DECODER = msgspec.json.Decoder()

NOT_DECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding JSON raises on bytes that may be anything: not JSON, text that is not UTF-8, nested without end."""

_DEEPEST = 256  # levels of a line; a node takes 200. Decoding allows for 990, but whoever handles them then fails


class LineWriter:
    """Appends JSON objects to a private file, one a line, each handed to the kernel at once.

    A process that is killed loses at most the line it was writing; lines are not synced to disk one by one, because
    what must survive is the controller's death, not the machine's.

    Parameters:
        path: the file; made with mode 0600.

    Raises:
        OSError: the file cannot be written (full disk, say).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._encoder = msgspec.json.Encoder()
        self._torn_from: int | None = None  # where a line begins that could be neither ended nor taken back

    def write(self, record: Any) -> None:
        """Append one record, whole or not at all: a disk that is full may have room again for the next one.

        Raises:
            OSError: it cannot be written; the file ends with the record before it.
        """
        self._take_back()
        line = memoryview(self._encoder.encode(record) + b"\n")
        written = 0
        try:
            while written < len(line):
                written += os.write(self._fd, line[written:])
        except OSError:
            if written:
                self._torn_from = os.lseek(self._fd, 0, os.SEEK_END) - written
                with contextlib.suppress(OSError):  # it is tried again before the next record
                    self._take_back()
            raise

    def _take_back(self) -> None:
        if self._torn_from is not None:
            os.ftruncate(self._fd, self._torn_from)
            self._torn_from = None

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def op_record(op: Op) -> dict[str, Any]:
    """`op` as it stands in a history: optional fields that are unset are left out."""
    record: dict[str, Any] = {"index": op.index, "time": op.time, "type": op.type, "process": op.process, "f": op.f}
    if op.key is not None:
        record["key"] = op.key
    record["value"] = op.value
    for name in ("error", "node", "client", "serial"):
        value = getattr(op, name)
        if value is not None:
            record[name] = value
    return record


class HistoryWriter:
    """Records a history as it happens. Events are numbered here, in the order in which they are recorded.

    Parameters:
        path: the history file to make.
        metadata: goes into the first line, beside the schema.
    """

    def __init__(self, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        self._lines = LineWriter(path)
        self._lines.write({"schema": HISTORY_SCHEMA, **(metadata or {})})
        self.count = 0

    def record(self, op: Op) -> None:
        """Append one event; its index is replaced by its place in the file."""
        record = op_record(op)
        record["index"] = self.count
        self._lines.write(record)
        self.count += 1

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def why_not_decodable(error: Exception) -> str:
    """One of `NOT_DECODABLE` in words that say what to look for in the file."""
    if isinstance(error, UnicodeDecodeError):  # it knows only the place within one text
        return f"it holds the byte 0x{error.object[error.start]:02x} where UTF-8 has none"
    return str(error)


def _refuse_nested_without_end(path: Path, number: int, line: bytes) -> None:
    if line.count(b"[") + line.count(b"{") <= _DEEPEST:
        return
    levels, level = 0, [_ANY_DECODER.decode(line)]
    while level := [value for value in level if isinstance(value, list | dict)]:
        levels += 1
        level = [inner for value in level for inner in (value if isinstance(value, list) else value.values())]
    if levels > _DEEPEST:
        raise HistoryError(
            f"{path}: line {number} is nested {levels} levels deep; at most {_DEEPEST} are read.",
            remedy="See docs/formats.md for the format.",
        )


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return io.BufferedReader(gzip.GzipFile(path, mode="rb"))
    return path.open("rb")


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The complete lines of a file with their numbers from 1; a torn last line (no newline, not JSON) is left out.

    Raises:
        HistoryError: the file cannot be opened or its compression is broken.
    """
    try:
        with contextlib.closing(_open(path)) as stream:
            number = 0
            try:
                for number, line in enumerate(stream, start=1):
                    if not line.endswith(b"\n"):
                        try:
                            _ANY_DECODER.decode(line)
                        except NOT_DECODABLE:
                            return  # the writer was cut off in the middle of this line
                    if line.strip():
                        yield number, line
            except EOFError:
                return  # a compressed file whose writer was cut off
            except (gzip.BadGzipFile, zlib.error) as error:
                broken = f"its compressed data are broken after line {number}: {error}"
                if str(error).startswith("Not a gzipped file"):
                    broken = "is not compressed by gzip, although its name ends in .gz"
                raise HistoryError(f"{path}: {broken}.") from error
    except OSError as error:
        raise HistoryError(f"{path}: cannot be read: {error.strerror or error}.") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All records of a JSON Lines file.

    Raises:
        HistoryError: a line other than a torn last one is not a JSON object; names file and line.
    """
    records = []
    for number, line in read_lines(path):
        try:
            record = _ANY_DECODER.decode(line)
        except NOT_DECODABLE as error:
            raise HistoryError(f"{path}: line {number} is not JSON: {why_not_decodable(error)}.") from error
        if not isinstance(record, dict):
            raise HistoryError(f"{path}: line {number} is not a JSON object.")
        _refuse_nested_without_end(path, number, line)
        records.append(record)
    return records


@contextlib.contextmanager
def _line_errors(path: Path, number: int) -> Iterator[None]:
    try:
        yield
    except NOT_DECODABLE as error:  # ValidationError is a DecodeError
        raise HistoryError(
            f"{path}: line {number} is not an event of a history: {why_not_decodable(error)}.",
            remedy="See docs/formats.md for the format.",
        ) from error


def read_history(path: Path) -> tuple[dict[str, Any], list[Op]]:
    """A history file (``.jsonl``, or ``.jsonl.gz``): its metadata, and its events in the order of the file.

    Raises:
        HistoryError: unreadable, not a history, of a schema version that is not known here, or its events do not stand
            at their indexes. Checks go by the order of the file: of events in another order, or without some of them,
            they would judge a history that never was.
    """
    metadata: dict[str, Any] = {}
    ops: list[Op] = []
    first = True
    decode = _OP_DECODER.decode
    for number, line in read_lines(path):
        if first:
            first = False
            with _line_errors(path, number):
                head = _ANY_DECODER.decode(line)
            if isinstance(head, dict) and "schema" in head:
                if head["schema"] != HISTORY_SCHEMA:
                    raise HistoryError(
                        f"{path}: has schema {head['schema']!r}; this version reads {HISTORY_SCHEMA!r}.",
                        remedy="Is it a history file?",
                    )
                metadata = head
                continue
        with _line_errors(path, number):
            op = decode(line)
            _refuse_nested_without_end(path, number, line)
        if op.index != len(ops):
            raise HistoryError(
                f"{path}: line {number} has index {op.index}, where {len(ops)} comes next.",
                remedy="In a history every event stands at its index, from 0, and none is left out: docs/formats.md.",
            )
        ops.append(op)
    return metadata, ops
