"""A vote is written to disk, and not synced."""

from __future__ import annotations

import sys
from typing import Any

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.storage.files import File
from raftbed.nodes.storage.log_store import DiskLogStore


class Unsynced:
    """A file of which syncs do nothing."""

    def __init__(self, file: File) -> None:
        self.file = file

    def append(self, data: bytes) -> None:
        """Write."""
        self.file.append(data)

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close."""
        self.file.close()


def plant() -> None:
    """Make the mistake."""
    persist = DiskLogStore.persist

    def persist_lazily(self: DiskLogStore, hard_state: Any, truncate_from: Any, entries: Any, **more: Any) -> None:
        if hard_state is None or truncate_from is not None or entries or any(more.values()) or self._file is None:
            persist(self, hard_state, truncate_from, entries, **more)
            return
        self._file = unsynced = Unsynced(self._file)
        persist(self, hard_state, truncate_from, entries, **more)
        if self._file is unsynced:  # else a new segment was begun
            self._file = unsynced.file

    replace(DiskLogStore, "persist", persist_lazily)


BUG = Bug(
    name="vote-without-fsync",
    mistake="a vote is written, and not synced",
    breaks="election safety",
    seen_in="robustmq #2039",
    test="crash-test",
    faults="power loss just after a vote (a killed process loses nothing)",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
