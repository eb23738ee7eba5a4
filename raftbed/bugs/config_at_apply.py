"""A configuration is in force from when it is applied, and not from when it is appended."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, Scenario, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.messages import MembershipConfig


def membership(self: Core) -> MembershipConfig:
    """The latest that was applied; before any was, the one that the cluster began with."""
    applied = self.log.membership_at(self.last_applied)
    return applied or self.initial_membership or self.log.membership() or MembershipConfig(())


def plant() -> None:
    """Make the mistake."""
    advance_rightly = Core.advance_commit

    def advance_commit(self: Core, index: int) -> None:
        before = self.membership
        advance_rightly(self, index)
        if self.leadership is not None and self.membership != before:
            self.streams_follow_membership(next_index=self.log.last_index)

    replace(Core, "membership", property(membership))
    replace(Core, "advance_commit", advance_commit)


BUG = Bug(
    name="config-at-apply",
    mistake="a configuration is in force from when it is applied, not from when it is appended",
    breaks="election safety",
    seen_in="etcd #7280",
    test="partition-test",
    faults="a change of membership that a part of the nodes has not applied, and the loss of the leader",
    simulation=Scenario(faults=("membership", "partition", "kill", "pause", "delay")),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
