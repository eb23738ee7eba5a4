"""What a power failure left of the last write stays in the log, and hides all that is written behind it."""

from __future__ import annotations

import sys
from typing import Any

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.storage.files import Directory, File
from raftbed.nodes.storage.log_store import DiskLogStore


class Uncut:
    """A directory of which files are never cut off."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def open(self, name: str, *, truncate_to: int | None = None) -> File:
        """Open, and leave what is there, but for the zeros that were written ahead: they are no tear."""
        if truncate_to is not None:
            size = max(truncate_to, len(self._directory.read(name).rstrip(b"\0")))
            if size < self._directory.size(name):
                return self._directory.open(name, truncate_to=size)
        return self._directory.open(name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._directory, name)


def plant() -> None:
    """Make the mistake."""
    open_directory = DiskLogStore._open_directory

    def open_uncut(self: DiskLogStore) -> Directory:
        self._directory = Uncut(open_directory(self))
        return self._directory

    replace(DiskLogStore, "_open_directory", open_uncut)


BUG = Bug(
    name="torn-tail-not-recovered",
    mistake="a torn end of the log is passed over, and not cut off, so that nothing written behind it is found again",
    breaks="durability",
    seen_in="etcd #6378",
    test="crash-test",
    faults="power loss within a write, and another restart",
    simulation=Scenario(
        story=Story(
            (
                Beat("slow-disk", "all", (0.0, 0.0), (0.5, 0.5), {"factor": 30}),
                Beat("power", "all", (0.4, 0.5), (0.05, 0.05)),
                Beat("kill", "all", (1.2, 1.2), (0.05, 0.05)),
            ),
            every=1.6,
        ),
        nodes=1,
        settings={"time_limit": 5.5},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
