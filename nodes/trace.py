"""The node's trace: what its Raft went through, as JSON Lines (docs/node.md), for invariant checkers and for people."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from raftbed.nodes.raft import Trace

TRACE_SCHEMA = "raftbed.trace/1"


class TraceFile:
    """Appends records to a file: one write for each round of the node's loop, before anything of that round leaves.

    A trace that cannot be written (a full disk, say) is given up with one line in the log: it makes checks weaker, and
    is no reason to stop a node.

    Parameters:
        path: the file; opened to append, so that a restarted node goes on in it.
        node: id of the node, in every record.
        clock: nanoseconds, monotonic; of the host, not of the controller.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, node: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._node = node
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._failed = False
        self._seq = -1
        process = {"schema": TRACE_SCHEMA, "pid": os.getpid(), "wall_time": time.time()}
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            self._write(b"\n")  # a kill tore the last line: what follows is a line of its own
        self._write(self._line("process", process))

    def __call__(self, traces: Sequence[Trace]) -> None:
        """Append a record for each."""
        self._write(b"".join([self._line(trace.event, trace.fields) for trace in traces]))

    def close(self, *, whole: bool = True) -> None:
        """Close the file; `whole`: with a last record that says that everything was traced that left this node."""
        if whole:
            self._write(self._line("end", {}))
        os.close(self._fd)

    def _line(self, event: str, fields: Mapping[str, Any]) -> bytes:
        self._seq += 1
        record = {"time": self._clock(), "node": self._node, "seq": self._seq, "event": event, **fields}
        return self._encode(record) + b"\n"

    def _write(self, lines: bytes) -> None:
        if self._failed:
            return
        try:
            if os.write(self._fd, lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # else the next line would go on in this one
        except OSError as error:
            self._failed = True
            logging.getLogger("raftbed.nodes").warning("the trace is given up: %s", error.strerror)
