"""What a leader or a candidate makes of answers that no sound peer gives: nothing stops it, nothing false is counted.

That their numbers can be numbers at all is looked at where they come in: nodes/peers.py, and the tests of that.
"""

from __future__ import annotations

import pytest
from raft_harness import Cluster

from raftbed.nodes.raft import AppendEntriesResponse, ConflictHint, VoteResponse
from raftbed.nodes.raft.events import Answered, Send
from raftbed.nodes.raft.messages import MOST


def last_sent(cluster: Cluster, sender: str, to: str, method: str) -> Send:
    """The last message of a kind from one node to another."""
    return [message for name, message in cluster.sent if (name, message.to, message.method) == (sender, to, method)][-1]


def success(verified: int) -> AppendEntriesResponse:
    return AppendEntriesResponse(1, success=True, verified_index=verified)


def conflict(term: int, index: int) -> AppendEntriesResponse:
    return AppendEntriesResponse(1, success=False, conflict=ConflictHint(term, index))


ABOUT_A_LOG = {
    "more verified than was asked": success(MOST),
    "one entry more verified than was asked": success(3),
    "less than nothing verified": success(-1),
    "a conflict beyond every log": conflict(0, MOST),
    "a conflict before every log": conflict(0, -MOST),
    "a conflict at index 0": conflict(0, 0),
    "a conflict in a term to come": conflict(MOST, 1),
    "a conflict in a negative term": conflict(-1, -1),
    "a conflict in this very term": conflict(1, MOST),
}


@pytest.mark.parametrize("what", ABOUT_A_LOG)
def test_nonsense_about_a_log_commits_nothing_and_stops_nobody(what: str) -> None:
    cluster = Cluster(3)
    leader = cluster.run_until(cluster.settled)
    cluster.run_until(cluster.together)
    other = next(name for name in cluster.nodes if name != leader)
    answer = ABOUT_A_LOG[what]
    assert cluster.core(leader).term == answer.term
    earlier = last_sent(cluster, leader, other, "append_entries")
    cluster.write(leader, "everybody has it")
    cluster.run_until(cluster.together)
    cluster.isolate(leader)
    lonely = cluster.write(leader, "nobody else has it")
    assert cluster.core(leader).log.last_index == 3
    cluster.nodes[leader].take(Answered(earlier, answer))
    cluster.run(60)  # it sends heartbeats, too
    assert (lonely.done, cluster.core(leader).commit_index) == (False, 2)
    cluster.heal()
    cluster.run_until(lambda: lonely.done)
    cluster.run_until(cluster.together)
    assert cluster.leader() == leader


@pytest.mark.parametrize("term", [0, 1])
def test_a_vote_that_was_given_in_another_term_is_not_counted(term: int) -> None:
    cluster = Cluster(3, pre_vote=False)
    leader = cluster.run_until(cluster.settled)
    cluster.run_until(cluster.together)
    candidate, voter = (name for name in cluster.nodes if name != leader)
    cluster.isolate(candidate)
    cluster.elect(candidate)
    cluster.run(20)
    core = cluster.core(candidate)
    asked = last_sent(cluster, candidate, voter, "vote")
    assert (core.term, asked.request.term) == (2, 2)
    cluster.nodes[candidate].take(Answered(asked, VoteResponse(term, vote_granted=True)))
    assert cluster.leader() == leader
    cluster.nodes[candidate].take(Answered(asked, VoteResponse(2, vote_granted=True)))
    assert cluster.leader() == candidate, "as its own term's is"
