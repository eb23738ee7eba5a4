"""During a change of the membership only the majority of the old voters is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft import election, reads, replication
from raftbed.nodes.raft.messages import MembershipConfig, NodeId
from raftbed.nodes.raft.quorum import is_quorum as is_quorum_rightly
from raftbed.nodes.raft.quorum import quorum_value as quorum_value_rightly


def is_quorum(membership: MembershipConfig, nodes: Container[NodeId]) -> bool:
    """Ask the old voters only."""
    return is_quorum_rightly(MembershipConfig(membership.members), nodes)


def quorum_value(membership: MembershipConfig, value: Callable[[NodeId], int]) -> int:
    """Count the old voters only."""
    return quorum_value_rightly(MembershipConfig(membership.members), value)


def plant() -> None:
    """Make the mistake."""
    replace(election, "is_quorum", is_quorum)
    replace(replication, "is_quorum", is_quorum)
    replace(replication, "quorum_value", quorum_value)
    replace(reads, "quorum_value", quorum_value)


BUG = Bug(
    name="joint-one-majority",
    mistake="joint consensus asks for the majority of the old voters only",
    breaks="election safety and leader completeness",
    seen_in="openraft 6c0ccaf3",
    test="partition-test",
    faults="a change of membership during which old and new voters are apart",
    simulation=Scenario(
        # The leader and one more have the new configuration, the others the joint one: both sides find their majority.
        story=Story(
            (
                Beat("delay", "all", (0.0, 0.0), (2.0, 2.0), {"most_ms": 60}),
                Beat("membership", "followers-minority", (0.3, 0.3), (2.0, 2.0)),
                Beat("partition", "leader-minority", (0.32, 0.6), (1.2, 1.2)),
            ),
            every=3.0,
        ),
        settings={"time_limit": 7.0},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
