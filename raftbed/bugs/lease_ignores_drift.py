"""A leader's lease lasts as long as its followers' promise, as if all clocks ran equally fast."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
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
        story=Story(
            (
                Beat("clock", "leader", (0.0, 0.0), (1.6, 1.6), {"ppm": -200_000}),
                Beat("clock", "followers-majority", (0.0, 0.0), (1.6, 1.6), {"ppm": 200_000}),
                Beat("partition", "leader-alone", (0.3, 0.5), (1.0, 1.0)),
            ),
            every=2.2,
        ),
        node_options={
            "lease_drift_percent": 50,
            "election_timeout_min": 500,
            "election_timeout_max": 550,
            "heartbeat_interval": 50,
        },
        nodes=3,
        settings={"time_limit": 5.5, "rate": 300.0, "keys": 2, "concurrency": 60},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
