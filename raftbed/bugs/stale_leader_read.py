"""A leader answers reads from its own state, and asks nobody whether it still leads."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.errors import ReadForwardToLeader
from raftbed.nodes.raft.events import Token


def read_requested(self: Core, token: Token) -> None:
    """Serve the read at once."""
    self.respond(token, ReadForwardToLeader(self.leader_id) if self.leadership is None else self.commit_index)


def plant() -> None:
    """Make the mistake."""
    replace(Core, "read_requested", read_requested)


BUG = Bug(
    name="stale-leader-read",
    mistake="reads are served from the leader's local state, with no check that it still leads",
    breaks="linearizability",
    seen_in="etcd 0.4 and Consul (Jepsen)",
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
