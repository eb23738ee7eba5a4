"""Standard output and standard error as they are found: closed, full, with nobody reading, in any character set.

A run is not cut off because its terminal is gone, and no exit code says "invalid" because a disk was full. And text is
made harmless for a terminal, since hosts, logs and file names say what they like.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import re
import select
import sys
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_READER_GONE: Final = {errno.EPIPE, errno.EIO}
"""What a pipe that nobody reads, and a terminal that is gone, answer."""

_PLAIN: Final = {"✓": "+", "✗": "x", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "…": "...", "─": "-", "·": "-"}
"""Signs that we print ourselves, for character sets that lack them. Not "?", which says that a verdict is unknown."""

_ERRORS: Final = "raftbed.plain"

_COMMANDS: Final = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""What a terminal obeys instead of showing it, but newline and tab: controls of ASCII (C0) and of Latin-1 (C1), and
what changes the direction of writing, by which a text can be made to read as another (CVE-2021-42574, "Trojan Source").
"""

_COMMAND: Final = re.compile(f"[{_COMMANDS}]")
_NOT_IN_JSON: Final = re.compile(f"[{_COMMANDS}\ud800-\udfff]")
_NOT_IN_ASCII: Final = re.compile(f"[{_COMMANDS}]|[^\x00-\x7f]")


def visible(text: str) -> str:
    """`text` with an escape such as ``\\x1b`` in the place of each character that a terminal would obey."""
    return _COMMAND.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_json(text: str, *, ascii_only: bool = False) -> str:
    """The same for a JSON text, whose meaning does not change: it has an escape for every character.

    Parameters:
        text: formatted, so that all these stand inside of strings.
        ascii_only: escape whatever is not ASCII.
    """
    return (_NOT_IN_ASCII if ascii_only else _NOT_IN_JSON).sub(_json_escape, text)


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place] << 8 | units[place + 1]:04x}" for place in range(0, len(units), 2))


class _Descriptor(io.FileIO):
    """A file descriptor to write to; what it refuses is dropped, and the first reason kept."""

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := cast("int | None", super().write(data))) is None:
                select.select([], [self], [])  # somebody who shares the terminal made it non-blocking
            return written
        except OSError as error:
            self.failure = self.failure or error
            return memoryview(data).nbytes


class OutputStream(io.TextIOWrapper):
    """Text to a file descriptor, line by line: writing to it never fails.

    What its character set lacks is written in plain letters, or as an escape such as ``\\u2713``.

    Parameters:
        descriptor: stays open when the stream is closed.
        encoding: name of the character set.
    """

    def __init__(self, descriptor: int, encoding: str) -> None:
        self._descriptor = _Descriptor(descriptor, "w", closefd=False)
        super().__init__(io.BufferedWriter(self._descriptor), encoding, _ERRORS, line_buffering=True)

    @property
    def failure(self) -> OSError | None:
        """Why something that was written here went nowhere; None when nothing did."""
        return self._descriptor.failure

    @property
    def is_unread(self) -> bool:
        """Whoever read this has gone away: a pipe is closed, or a terminal."""
        return self.failure is not None and self.failure.errno in _READER_GONE


def guard_outputs() -> None:
    """Make standard output and error of this process an `OutputStream` each, and open what was closed to /dev/null.

    A descriptor that stayed closed would be given to the next file that is opened, and our output would go there.
    Streams that somebody has replaced, as a test does to read them, are left alone.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number, which is this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115  it lives as long as the process
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, OutputStream(descriptor, stream.encoding if stream is not None else "utf-8"))


def _plain(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: our own signs in plain letters, anything else as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in lacking), error.end


codecs.register_error(_ERRORS, _plain)
