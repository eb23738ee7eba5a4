"""Entries of earlier terms are committed by counting replicas."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.raft.core import Core


def may_commit_by_count(self: Core, index: int) -> bool:
    """Whatever a majority holds."""
    return True


def plant() -> None:
    """Make the mistake."""
    replace(Core, "may_commit_by_count", may_commit_by_count)


BUG = Bug(
    name="commit-old-term-by-count",
    mistake="entries of earlier terms are committed by counting replicas",
    breaks="leader completeness",
    seen_in="Raft paper, figure 8; LogCabin #44",
    test="crash-test",
    faults="leaders that change while entries are on a part of the nodes",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
