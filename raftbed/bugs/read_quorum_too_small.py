"""A round of reads is confirmed by the leader alone: one confirmation too few is asked for."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.state import Leadership


def round_confirmed(self: Core, leadership: Leadership) -> bool:
    """Count the leader's own confirmation as enough."""
    return self.acknowledged_round(self.id) >= leadership.round


def plant() -> None:
    """Make the mistake."""
    replace(Core, "round_confirmed", round_confirmed)


BUG = Bug(
    name="read-quorum-too-small",
    mistake="a linearizable read is confirmed by the leader alone",
    breaks="linearizability",
    seen_in="async-raft #143",
    test="partition-test",
    faults="a leader on the minority side that has not noticed yet, while the majority elects another",
    node_options={"check_quorum": False},
    simulation=Scenario(
        story=Story((Beat("partition", "leader-alone", (0.0, 0.2), (0.8, 1.0)),), every=1.6),
        nodes=3,
        settings={"time_limit": 4.0, "rate": 300.0, "keys": 2, "concurrency": 60},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
