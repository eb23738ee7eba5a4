"""Files that nobody but their user may read: runs, clusters and keys hold what others must not see."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from raftbed.errors import StoreError


def write_private(path: Path, content: bytes) -> None:
    """Write a file with mode 0600, whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as stream:
            stream.write(content)
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}.") from error
