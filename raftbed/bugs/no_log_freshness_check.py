"""A vote is granted to a candidate whose log is shorter than the voter's."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.messages import VoteRequest


def log_is_fresh(self: Core, request: VoteRequest) -> bool:
    """Never mind."""
    return True


def plant() -> None:
    """Make the mistake."""
    replace(Core, "log_is_fresh", log_is_fresh)


BUG = Bug(
    name="no-log-freshness-check",
    mistake="a vote is granted to a candidate with a shorter log",
    breaks="leader completeness, seen as linearizability",
    seen_in="akka-raft #51",
    test="partition-test",
    faults="followers that fell behind come back just as the leader is lost",
    node_options={"pre_vote": False},  # akka-raft had none: who comes back with a higher term deposes the leader
    simulation=Scenario(
        story=Story(
            (
                Beat("partition", "followers-minority", (0.0, 0.1), (1.0, 1.0)),
                Beat("partition", "leader-alone", (0.9, 1.0), (1.0, 1.0)),
            ),
            every=2.5,
        ),
        nodes=3,
        settings={"time_limit": 6.0},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
