"""A candidate asks twice, and counts answers rather than voters."""

from __future__ import annotations

import sys
from typing import Any

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Send
from raftbed.nodes.raft.messages import VoteResponse
from raftbed.nodes.raft.quorum import majority


def won(self: Core) -> bool:
    """Count answers."""
    return len(self.votes) >= majority(len(self.membership.voters()))


def plant() -> None:
    """Make the mistake."""
    vote_answered, request_votes = Core.vote_answered, Core.request_votes

    def count_again(self: Core, sent: Send, response: VoteResponse) -> None:
        again = sent.to in self.votes and response.vote_granted and self.vote_counts(sent, response)
        if again and response.term <= self.term:
            self.votes.add(f"{sent.to} again")
        vote_answered(self, sent, response)

    def ask_twice(self: Core, method: str, term: int, **options: Any) -> None:
        request_votes(self, method, term, **options)
        request_votes(self, method, term, **options)

    replace(Core, "won", won)
    replace(Core, "vote_answered", count_again)
    replace(Core, "request_votes", ask_twice)


BUG = Bug(
    name="duplicate-vote-counted",
    mistake="two answers of the same voter are counted as two votes",
    breaks="election safety",
    seen_in="akka-raft #45",
    test="partition-test",
    faults="a candidate that reaches a minority only",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
