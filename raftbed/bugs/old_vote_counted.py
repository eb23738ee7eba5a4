"""A vote that was given in an earlier term is counted in the present one."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
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
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
