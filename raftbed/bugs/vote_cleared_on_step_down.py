"""A candidate or leader that steps down within its term forgets that it has voted in it."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.messages import NodeId
from raftbed.nodes.raft.state import State


def plant() -> None:
    """Make the mistake."""
    become_follower = Core.become_follower

    def become_follower_and_forget(self: Core, term: int, leader: NodeId | None) -> None:
        steps_down = term == self.term and self.state in (State.CANDIDATE, State.LEADER)
        become_follower(self, term, leader)
        if steps_down:
            self.save_hard_state(self.term, None)

    replace(Core, "become_follower", become_follower_and_forget)


BUG = Bug(
    name="vote-cleared-on-step-down",
    mistake="voted_for is cleared when a candidate or leader steps down within its term",
    breaks="election safety",
    seen_in="CCF #5891",
    test="partition-test",
    faults="a delayed request for a vote of the same term",
    simulation=Scenario(
        # A leader that hears nobody steps down within its term, and restarts.
        story=Story(
            (
                Beat("partition", "leader-alone", (0.0, 0.1), (1.0, 1.0)),
                Beat("kill", "all", (0.6, 0.8), (0.1, 0.1)),
            ),
            every=2.0,
        ),
        nodes=3,
        settings={"time_limit": 4.5},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
