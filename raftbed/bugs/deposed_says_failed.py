"""A deposed leader says of writes in flight that they failed, although they may still be committed."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes import problems
from raftbed.nodes.problems import Problem


def leadership_lost(node: str) -> Problem:
    """Claim to know."""
    return Problem(503, "leadership-lost", f"{node} was deposed; the write failed.", definite=True)


def plant() -> None:
    """Make the mistake."""
    replace(problems, "leadership_lost", leadership_lost)


BUG = Bug(
    name="deposed-says-failed",
    mistake="a deposed leader reports a definite failure for writes that its successor may commit",
    breaks="linearizability",
    seen_in="summitdb #5",
    test="partition-test",
    faults="a leader that still reaches its followers, but does not hear them",
    simulation=Scenario(
        story=Story((Beat("partition", "leader-deaf", (0.0, 0.2), (0.5, 1.0)),), every=1.8),
        nodes=3,
        settings={"time_limit": 4.0},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
