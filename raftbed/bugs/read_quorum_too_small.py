"""A round of reads is confirmed by the leader alone: one confirmation too few is asked for."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
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
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
