"""The private directories in which tunnels have their sockets: made, and removed when their process has died.

A process holds a lock (flock(2)) on each of its directories for as long as it lives, however it ends; so a directory
that can be locked is nobody's.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "raftbed-tunnel-"


class TunnelDirectory:
    """A new directory, private to this user, whose path is short enough for Unix sockets in it."""

    def __init__(self) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock = _lock(self.path, wait=True)
            if self._lock >= 0:
                return  # else somebody who sweeps was faster

    def close(self) -> None:
        """Remove it; idempotent."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def sweep() -> list[str]:
    """Remove this user's directories whose processes are gone; what each of them was."""
    removed = []
    for path in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
        lock = _lock(path, wait=False)
        if lock >= 0:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
            removed.append(f"tunnels of a dead process in {path}")
    return removed


def _lock(path: Path, *, wait: bool) -> int:
    """A descriptor that holds the lock of a directory of this user's, or -1."""
    descriptor = -1
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        found = os.fstat(descriptor)
        # Locked, it may still be another by now: one that was removed meanwhile has no links left.
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == 0o700 and found.st_nlink:
            return descriptor
    if descriptor >= 0:
        os.close(descriptor)
    return -1
