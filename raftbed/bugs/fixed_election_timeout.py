"""All nodes wait equally long before they stand for election."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.raft.config import MILLISECOND
from raftbed.nodes.raft.core import Core


def reset_election_deadline(self: Core) -> None:
    """No jitter."""
    self.election_deadline = self.now + self.config.election_timeout_min * MILLISECOND


def plant() -> None:
    """Make the mistake."""
    replace(Core, "reset_election_deadline", reset_election_deadline)


BUG = Bug(
    name="fixed-election-timeout",
    mistake="the election timeout is not drawn at random",
    breaks="liveness: votes are split again and again",
    seen_in="EastGuard #120",
    test="crash-test",
    faults="the loss of the leader",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
