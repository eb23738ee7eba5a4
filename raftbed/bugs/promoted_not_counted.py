"""Non-voters that this leader made voters do not count when it commits, neither as voters nor as holders."""

from __future__ import annotations

import sys
from weakref import WeakKeyDictionary

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.messages import MembershipConfig, NodeId
from raftbed.nodes.raft.quorum import majority


def plant() -> None:
    """Make the mistake."""
    append_rightly = Core.append_config
    promoted: WeakKeyDictionary[Core, tuple[int, set[NodeId]]] = WeakKeyDictionary()  # in which term, and who

    def append_config(self: Core, membership: MembershipConfig) -> None:
        if membership.members_after_consensus is not None:
            term, nodes = promoted.get(self, (self.term, set()))
            new = set(membership.members_after_consensus) - set(membership.members)
            promoted[self] = (self.term, new | nodes if term == self.term else new)
        append_rightly(self, membership)

    def advance_commit_as_leader(self: Core) -> None:
        term, nodes = promoted.get(self, (self.term, set()))
        reached = []
        for voters in self.membership.voter_sets():
            counted = [voter for voter in voters if term != self.term or voter not in nodes] or voters
            held = sorted((self.acknowledged_index(voter) for voter in counted), reverse=True)
            reached.append(held[majority(len(held)) - 1] if held else 0)
        index = min(reached)
        if index > self.commit_index and self.may_commit_by_count(index):
            self.advance_commit(index)

    replace(Core, "append_config", append_config)
    replace(Core, "advance_commit_as_leader", advance_commit_as_leader)


BUG = Bug(
    name="promoted-not-counted",
    mistake="non-voters that were made voters do not count when entries are committed",
    breaks="leader completeness",
    seen_in="async-raft #132",
    test="partition-test",
    faults="nodes that join, and then elect a leader without those that counted",
    simulation=Scenario(
        story=Story(
            (
                Beat("membership", "followers-minority", (0.0, 0.0), (0.5, 0.5)),
                Beat("partition", "leader-minority", (0.9, 1.1), (1.0, 1.0)),
            ),
            every=2.6,
        ),
        settings={"time_limit": 6.0},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
