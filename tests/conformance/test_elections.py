"""Who leads: raft.md sections 1 and 2, elections. In virtual time, on the pure core."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from raft_harness import MS, Cluster

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    Blank,
    Config,
    ConfigChange,
    Entry,
    HardState,
    MembershipConfig,
    Normal,
    State,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Answered, Durable, Elect, Persist, Received, Respond, Send

THREE = MembershipConfig(("n1", "n2", "n3"))


def started(
    name: str = "n1", *, entries: tuple[Entry, ...] = (), term: int = 0, voted_for: str | None = None, **options: Any
) -> Core:
    """A core on what a storage might hold, at time 0."""
    core = Core(
        name,
        Config("test", **options),
        Random(1),
        hard_state=HardState(term, voted_for),
        entries=entries,
        now=0,
    )
    core.start()
    core.ready()
    return core


def peaceful(cluster: Cluster) -> str:
    """Waits until everyone follows one leader, and knows the membership to be committed; returns the leader."""
    leader: str = cluster.run_until(cluster.settled)
    cluster.run_until(lambda: all(node.applied for node in cluster.nodes.values()))
    return leader


def log(*terms: int, members: MembershipConfig = THREE) -> tuple[Entry, ...]:
    """A log with entries of these terms; the first is the membership."""
    rest = (Entry(index, term, Normal(index)) for index, term in enumerate(terms[1:], 2))
    return (Entry(1, terms[0], ConfigChange(members)), *rest)


def ask(core: Core, method: Any, request: VoteRequest, now: int = 0) -> tuple[VoteResponse, Persist | None]:
    """The answer to a candidate, and what has to be on disk before it leaves."""
    core.step(Received("token", method, request), now)
    ready = core.ready()
    assert ready is not None
    (answer,) = [effect.value for effect in ready.effects if isinstance(effect, Respond)]
    return answer, ready.persist


# -- non-voters -------------------------------------------------------------------------------------------------------


def test_pristine_node_is_passive_non_voter():
    core = started()
    assert core.metrics().state is State.NON_VOTER
    assert core.deadline is None, "it never wants to be woken"
    core.tick(10**12)
    core.step(Elect(), 10**12)
    assert core.ready() is None
    assert core.metrics().state is State.NON_VOTER


def test_non_voter_restart():
    """A node that holds a log in which it does not vote stays passive, whatever it held before."""
    core = started("n9", entries=log(1, 1), term=1)
    assert core.metrics().state is State.NON_VOTER
    core.tick(10**12)
    assert core.ready() is None


def test_a_non_voter_that_voted_is_still_one_after_a_restart():
    """It may have voted for the first leader of its cluster before it heard of the membership."""
    core = started(term=1, voted_for="n2")
    assert core.metrics().state is State.NON_VOTER
    assert core.deadline is None


# -- restarts ---------------------------------------------------------------------------------------------------------


def test_single_node_restart_resumes_leader():
    cluster = Cluster(1)
    cluster.run_until(cluster.settled)
    written = cluster.write("n1", "x")
    cluster.run_until(lambda: written.done)
    cluster.restart("n1")
    cluster.run_until(lambda: cluster.leader() == "n1", limit=1)
    cluster.run_until(lambda: Normal("x") in cluster.nodes["n1"].applied, limit=1)


def test_restart_follower_elects_promptly():
    """All restart at once: two rounds of election timeouts are enough in the ordinary case."""
    cluster = Cluster(3)
    peaceful(cluster)
    for name in cluster.nodes:
        cluster.restart(name)
    assert {node.core.state for node in cluster.nodes.values()} == {State.FOLLOWER}
    cluster.run_until(cluster.settled, limit=2 * cluster.config.election_timeout_max)


def test_a_follower_that_restarts_does_not_depose_the_leader():
    cluster = Cluster(3)
    leader = peaceful(cluster)
    term = cluster.core(leader).term
    follower = next(name for name in cluster.nodes if name != leader)
    cluster.restart(follower)
    cluster.run(2000)
    assert (cluster.settled(), cluster.core(leader).term) == (leader, term)


def test_a_restarted_node_has_not_forgotten_its_vote():
    core = started(entries=log(1), term=2, voted_for="n2")
    assert ask(core, "vote", VoteRequest(2, "n3", 9, 2)) == (VoteResponse(2, vote_granted=False), None)
    assert ask(core, "vote", VoteRequest(2, "n2", 9, 2)) == (VoteResponse(2, vote_granted=True), None)


# -- votes ------------------------------------------------------------------------------------------------------------


def test_vote_rejected_under_live_leader():
    """Within election_timeout_min of a heartbeat a vote is denied, and its term not adopted (thesis 4.2.3)."""
    core = started("n2", entries=log(1), term=1, election_timeout_min=150, election_timeout_max=300)
    heartbeat = AppendEntriesRequest(1, "n1", 1, 1, (), 1)
    core.step(Received("token", "append_entries", heartbeat), 1000 * MS)
    core.ready()
    for method in ("vote", "pre_vote"):
        asked = VoteRequest(7, "n3", 99, 1)
        assert ask(core, method, asked, now=1149 * MS) == (VoteResponse(1, vote_granted=False), None)
    assert ask(core, "pre_vote", asked, now=1150 * MS)[0].vote_granted
    assert ask(core, "vote", asked, now=1150 * MS)[0] == VoteResponse(7, vote_granted=True)


def test_vote_rejected_by_the_live_leader_itself():
    cluster = Cluster(3)
    leader = peaceful(cluster)
    term = cluster.core(leader).term
    asked = VoteRequest(term + 5, "n9", 99, term)
    answer = cluster.ask(leader, lambda token: Received(token, "vote", asked))
    cluster.run_until(lambda: answer.done)
    assert answer.value == VoteResponse(term, vote_granted=False)
    assert cluster.leader() == leader


def test_a_vote_is_on_disk_before_it_is_given():
    core = started(entries=log(1))
    answer, persist = ask(core, "vote", VoteRequest(2, "n2", 1, 1))
    assert answer == VoteResponse(2, vote_granted=True)
    assert persist == Persist(HardState(2, "n2"), None, ())


def test_one_vote_per_term():
    core = started(entries=log(1))
    assert ask(core, "vote", VoteRequest(2, "n2", 1, 1))[0].vote_granted
    core.step(Durable(), 0)
    assert not ask(core, "vote", VoteRequest(2, "n3", 1, 1))[0].vote_granted
    assert ask(core, "vote", VoteRequest(2, "n2", 1, 1))[0].vote_granted, "the answer may have been lost"
    assert ask(core, "vote", VoteRequest(3, "n3", 1, 1))[0].vote_granted


@pytest.mark.parametrize(
    ("last_term", "last_index", "granted"),
    [(3, 3, True), (3, 4, True), (4, 1, True), (3, 2, False), (2, 9, False), (1, 99, False)],
)
def test_votes_go_to_logs_that_are_as_fresh(last_term, last_index, granted):
    """The last term decides, then the length: not both at once, as async-raft has it."""
    core = started(entries=log(1, 2, 3), term=3)
    assert ask(core, "pre_vote", VoteRequest(9, "n2", last_index, last_term))[0].vote_granted is granted
    assert ask(core, "vote", VoteRequest(9, "n2", last_index, last_term))[0].vote_granted is granted


def test_a_vote_of_an_older_term_is_refused():
    core = started(entries=log(1), term=5)
    assert ask(core, "vote", VoteRequest(4, "n2", 9, 4)) == (VoteResponse(5, vote_granted=False), None)


def test_a_vote_moves_the_own_election_away():
    core = started(entries=log(1))
    before = core.deadline
    ask(core, "vote", VoteRequest(1, "n2", 1, 1), now=100 * MS)
    assert core.deadline >= 100 * MS + core.config.election_timeout_min * MS > before - 300 * MS


def test_votes_of_an_earlier_election_do_not_count():
    cluster = Cluster(3, pre_vote=False)
    leader = peaceful(cluster)
    follower, other = (name for name in cluster.nodes if name != leader)
    cluster.nodes[leader].crash()
    cluster.delay = (400 * MS, 400 * MS)  # longer than an election timeout: every answer comes too late
    cluster.run_until(lambda: cluster.core(follower).term > 3 or cluster.core(other).term > 3)
    cluster.run(3000)
    assert cluster.leader() is None
    cluster.delay = (1 * MS, 2 * MS)
    cluster.run_until(cluster.leader)


def test_joint_election_two_majorities():
    """During a change of membership a candidate needs a majority of the old voters and one of the new ones."""
    joint = MembershipConfig(("n1", "n2", "n3"), ("n3", "n4", "n5"))
    core = started(entries=log(1, members=joint), term=1, pre_vote=False)
    core.tick(core.deadline)
    asked = {effect.to: effect for effect in core.ready().effects if isinstance(effect, Send)}
    assert set(asked) == {"n2", "n3", "n4", "n5"}
    core.step(Durable(), core.now)
    for voter, state in [("n2", State.CANDIDATE), ("n4", State.CANDIDATE), ("n5", State.LEADER)]:
        core.step(Answered(asked[voter], VoteResponse(2, vote_granted=True)), core.now)
        assert core.state is state


# -- PreVote ----------------------------------------------------------------------------------------------------------


def test_a_promise_changes_nothing():
    core = started(entries=log(1), term=1)
    answer, persist = ask(core, "pre_vote", VoteRequest(2, "n2", 1, 1))
    assert (answer, persist) == (VoteResponse(1, vote_granted=True), None)
    assert ask(core, "pre_vote", VoteRequest(2, "n3", 1, 1))[0].vote_granted, "promises are not votes"
    assert (core.term, core.state) == (1, State.FOLLOWER)


def test_a_node_that_was_cut_off_comes_back_without_deposing():
    cluster = Cluster(5)
    leader = peaceful(cluster)
    term = cluster.core(leader).term
    away = next(name for name in cluster.nodes if name != leader)
    cluster.isolate(away)
    cluster.run(5000)
    assert cluster.core(away).state is State.PRE_CANDIDATE
    assert cluster.core(away).term == term, "it campaigned for promises only"
    cluster.heal()
    cluster.run_until(cluster.settled)
    assert (cluster.leader(), cluster.core(leader).term) == (leader, term)


def test_a_pre_candidate_without_a_majority_persists_nothing():
    core = started(entries=log(1), term=1)
    core.tick(core.deadline)
    ready = core.ready()
    assert ready.persist is None
    assert {effect.method for effect in ready.effects} == {"pre_vote"}
    assert {effect.request.term for effect in ready.effects} == {2}


# -- CheckQuorum ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_leader_without_a_quorum_steps_down(size):
    cluster = Cluster(size)
    leader = peaceful(cluster)
    kept = [name for name in cluster.nodes if name != leader][: (size - 1) // 2]  # with the leader, half at most
    kept = kept if 2 * (len(kept) + 1) <= size else kept[:-1]
    cluster.partition([leader, *kept], [name for name in cluster.nodes if name not in (leader, *kept)])
    cluster.run(cluster.config.election_timeout_max + 2 * cluster.config.heartbeat_interval)
    assert cluster.core(leader).state is not State.LEADER
    assert cluster.core(leader).leader_id != leader


def test_a_leader_with_a_bare_quorum_goes_on():
    cluster = Cluster(5)
    leader = peaceful(cluster)
    others = [name for name in cluster.nodes if name != leader]
    cluster.partition([leader, *others[:2]], others[2:])
    cluster.run(3000)
    assert cluster.core(leader).state is State.LEADER


def test_without_check_quorum_a_leader_leads_on():
    cluster = Cluster(3, check_quorum=False)
    leader = peaceful(cluster)
    cluster.isolate(leader)
    cluster.run(3000)
    assert cluster.core(leader).state is State.LEADER


def test_a_leader_that_nobody_hears_is_replaced_though_it_hears_all():
    """One-way: the cut leader gets no answers, since nobody gets its questions."""
    cluster = Cluster(3)
    leader = peaceful(cluster)
    cluster.cut = {(leader, name) for name in cluster.nodes if name != leader}
    cluster.run_until(lambda: cluster.leader() not in (None, leader))
    cluster.run_until(lambda: cluster.core(leader).state is not State.LEADER)


# -- initialize -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_initialize_race(seed):
    """Every member calls it at the same time: one cluster, one leader, whatever each call was answered."""
    cluster = Cluster(5, seed=seed, initialized=False)
    calls = [cluster.initialize(name) for name in cluster.nodes]
    leader = peaceful(cluster)
    assert all(call.done for call in calls)
    written = cluster.write(leader, "x")
    cluster.run_until(lambda: all(Normal("x") in node.applied for node in cluster.nodes.values()))
    assert isinstance(written.value, tuple)
    assert {node.core.membership for node in cluster.nodes.values()} == {
        MembershipConfig(("n1", "n2", "n3", "n4", "n5"))
    }


def test_the_first_leader_commits_the_membership_and_later_ones_a_blank():
    cluster = Cluster(3)
    leader = peaceful(cluster)
    cluster.nodes[leader].crash()
    second = cluster.run_until(lambda: cluster.leader())
    cluster.run_until(lambda: len(cluster.nodes[second].applied) == 2)
    assert cluster.nodes[second].applied == [ConfigChange(THREE), Blank()]


# -- the trace --------------------------------------------------------------------------------------------------------


def test_each_campaign_is_in_the_trace():
    core = started(entries=log(1), term=1, pre_vote=False)
    for term in (2, 3):
        core.tick(core.deadline)
        ready = core.ready()
        roles = [trace.fields for trace in ready.traces if trace.event == "role"]
        assert roles == [{"term": term, "role": "candidate", "leader": None}]
