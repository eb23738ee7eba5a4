"""Term and vote are kept in memory, and are gone after a restart."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.messages import HardState, NodeId


def save_hard_state(self: Core, term: int, voted_for: NodeId | None) -> None:
    """Change them in memory only."""
    self.hard_state = HardState(term, voted_for)


def plant() -> None:
    """Make the mistake."""
    replace(Core, "save_hard_state", save_hard_state)


BUG = Bug(
    name="vote-not-persisted",
    mistake="term and vote are kept in memory only",
    breaks="election safety and leader completeness",
    seen_in="PySyncObj #202",
    test="crash-test",
    faults="a node that restarts within an election",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
