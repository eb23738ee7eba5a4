"""A vote that was given in an earlier term is counted in the present one."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Send
from raftbed.nodes.raft.messages import VoteResponse
from raftbed.nodes.raft.state import State


def vote_counts(self: Core, sent: Send, response: VoteResponse) -> bool:
    """Never mind in which term it was asked for."""
    return self.state is (State.PRE_CANDIDATE if sent.method == "pre_vote" else State.CANDIDATE)


def plant() -> None:
    """Make the mistake."""
    replace(Core, "vote_counts", vote_counts)


BUG = Bug(
    name="old-vote-counted",
    mistake="an answer to the request of an earlier election is counted as a vote",
    breaks="election safety",
    seen_in="xraft #33",
    test="partition-test",
    faults="answers that are delayed into the next election",
    simulation=Scenario(
        story=Story(
            (
                Beat("delay", "all", (0.0, 0.0), (1.5, 1.5), {"least_ms": 150, "most_ms": 350, "share": 0.3}),
                Beat("duplicate", "all", (0.0, 0.0), (1.5, 1.5), {"share": 0.7}),
                Beat("kill", "leader", (0.1, 0.2), (1.0, 1.4)),
                Beat("partition", "one-way", (0.2, 0.6), (0.4, 0.8)),
            ),
            every=2.2,
        ),
        node_options={"pre_vote": False},
        settings={"time_limit": 7.0},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
