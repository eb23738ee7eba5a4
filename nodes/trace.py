"""The node's trace: what its Raft went through, as JSON Lines (docs/node.md), for invariant checkers and for people."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

TRACE_SCHEMA = "raftbed.trace/1"


class TraceFile:
    """Appends records to a file; several a write, and handed to the kernel before anything else happens.

    Parameters:
        path: the file; opened to append, so that a restarted node goes on in it.
        node: id of the node, in every record.
        clock: nanoseconds, monotonic; of the host, not of the controller.
    """

    def __init__(self, path: Path, node: str, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._node = node
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode
        self._write({"schema": TRACE_SCHEMA, "time": clock(), "node": node, "event": "process", "pid": os.getpid()})

    def __call__(self, event: str, fields: Mapping[str, Any]) -> None:
        """Append one record."""
        self._write({"time": self._clock(), "node": self._node, "event": event, **fields})

    def _write(self, record: Mapping[str, Any]) -> None:
        os.write(self._fd, self._encode(record) + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
