"""A follower takes over the leader's commit index for entries that are not known to be the leader's."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.raft.core import Core


def advance_commit_as_follower(self: Core, leader_commit: int, verified: int) -> None:
    """Commit whatever the own log has there."""
    self.advance_commit(min(leader_commit, self.log.last_index))


def plant() -> None:
    """Make the mistake."""
    replace(Core, "advance_commit_as_follower", advance_commit_as_follower)


BUG = Bug(
    name="commit-past-verified",
    mistake="the leader's commit index is taken over for entries that were not verified",
    breaks="state machine safety",
    seen_in="copycat #265",
    test="partition-test",
    faults="a leader that comes back with entries that nobody else has",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
