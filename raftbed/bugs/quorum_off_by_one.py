"""Half of an even number of voters is taken for a majority."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft import quorum


def majority(size: int) -> int:
    """Right for odd sizes only."""
    return (size + 1) // 2


def plant() -> None:
    """Make the mistake."""
    replace(quorum, "majority", majority)


BUG = Bug(
    name="quorum-off-by-one",
    mistake="half of an even number of voters counts as a majority",
    breaks="election safety and leader completeness",
    seen_in="openraft #1802",
    test="partition-test",
    faults="a partition into halves",
    nodes=4,
    simulation=Scenario(
        story=Story((Beat("partition", "halves", (0.0, 0.2), (0.8, 1.2)),), every=1.8), settings={"time_limit": 4.5}
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
