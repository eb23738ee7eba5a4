"""Term and vote are kept in memory, and are gone after a restart."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
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
    simulation=Scenario(
        # Terms rise, are forgotten by all, and rise again: who has entries of an old, high term is elected for them.
        story=Story(
            (
                Beat("kill", "leader", (0.0, 0.1), (0.5, 0.6)),
                Beat("kill", "leader", (0.8, 0.9), (0.4, 0.5)),
                Beat("kill", "all", (1.5, 1.5), (0.05, 0.05)),
                Beat("partition", "one", (1.4, 1.4), (1.4, 1.4)),
                Beat("kill", "leader", (2.7, 2.8), (0.8, 0.8)),
            ),
            every=3.8,
        ),
        nodes=3,
        settings={"time_limit": 8.5},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
