"""A leader's lease lasts as long as its followers' promise, as if all clocks ran equally fast."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, Scenario, replace, run_planted
from raftbed.nodes.raft.config import MILLISECOND
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.quorum import quorum_value
from raftbed.nodes.raft.state import Leadership


def lease_holds(self: Core, leadership: Leadership) -> bool:
    """Without a margin."""
    if self.config.read_mode != "lease" or leadership.lease_given_up or not self.own_term_committed(leadership):
        return False
    lease = self.config.election_timeout_min * MILLISECOND
    return self.now < quorum_value(self.membership, self.acknowledged_at) + lease


def plant() -> None:
    """Make the mistake."""
    replace(Core, "lease_holds", lease_holds)


BUG = Bug(
    name="lease-ignores-drift",
    mistake="the lease has no margin for clocks that differ in speed",
    breaks="linearizability",
    seen_in="sofa-jraft #25",
    test="partition-test",
    faults="a leader whose clock is slow, and that is cut off while the others elect another",
    node_options={"read_mode": "lease"},
    simulation=Scenario(
        faults=("clock", "partition"),
        node_options={"election_timeout_min": 1000, "election_timeout_max": 1100, "heartbeat_interval": 100},
        settings={"rate": 400.0, "keys": 2},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
