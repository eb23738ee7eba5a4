"""Half of an even number of voters is taken for a majority."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
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
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
