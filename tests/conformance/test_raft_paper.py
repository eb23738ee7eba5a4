"""The Raft paper (Ongaro and Ousterhout: In Search of an Understandable Consensus Algorithm, extended), in its order.

Each test has the sentence of the paper that it is about. What the paper leaves open, and where this Raft does more, is
tested elsewhere; here it is followed section by section, in the manner of etcd's raft_paper_test.go.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from raft_harness import MS, Cluster

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Blank,
    Config,
    ConfigChange,
    Entry,
    HardState,
    LogsSinceLast,
    MembershipConfig,
    Normal,
    State,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Answered, ClientWrite, Durable, Received, Respond, Send

THREE = MembershipConfig(("n1", "n2", "n3"))
FIVE = MembershipConfig(("n1", "n2", "n3", "n4", "n5"))


def log(*terms: int, members: MembershipConfig = THREE) -> tuple[Entry, ...]:
    """A log with entries of these terms; the first is the membership."""
    rest = (Entry(index, term, Normal(index)) for index, term in enumerate(terms[1:], 2))
    return (Entry(1, terms[0], ConfigChange(members)), *rest)


def node(name: str = "n1", *terms: int, term: int | None = None, members: MembershipConfig = THREE) -> Core:
    """A follower with a log of these terms, as the paper has it: no PreVote, no CheckQuorum."""
    config = Config("test", pre_vote=False, check_quorum=False)
    entries = log(*(terms or (1,)), members=members)
    state = HardState(term or entries[-1].term)
    core = Core(name, config, Random(name), hard_state=state, entries=entries, now=0)
    core.start()
    settle(core)
    return core


def settle(core: Core) -> list[Any]:
    """All that the core wants sent and answered now; its disk does its work at once."""
    effects: list[Any] = []
    while (ready := core.ready()) is not None:
        effects += ready.early
        if ready.persist is not None:
            core.step(Durable(), core.now)
        effects += ready.effects
    return effects


def receive(core: Core, method: Any, request: Any, now: int = 0) -> Any:
    """What a request is answered."""
    core.step(Received("token", method, request), now)
    (response,) = [effect.value for effect in settle(core) if isinstance(effect, Respond)]
    return response


def sends(effects: list[Any], method: str) -> list[Send]:
    return [effect for effect in effects if isinstance(effect, Send) and effect.method == method]


def campaign(core: Core) -> list[Send]:
    """The election timeout goes by; returns the requests for votes."""
    core.tick(core.deadline)
    return sends(settle(core), "vote")


def leader(*terms: int, members: MembershipConfig = THREE) -> tuple[Core, list[Any]]:
    """n1, elected with everyone's vote, and what it sends first."""
    core = node("n1", *terms, members=members)
    effects: list[Any] = []
    for request in campaign(core):
        core.step(Answered(request, VoteResponse(core.term, vote_granted=True)), core.now)
        effects += settle(core)
    return core, effects


# -- 5.1 Raft basics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["follower", "candidate", "leader"])
def test_5_1_if_one_servers_term_is_smaller_it_updates_its_term_and_reverts_to_follower(role):
    core = leader(1)[0] if role == "leader" else node("n1", 1)
    if role == "candidate":
        campaign(core)
    assert core.state == role
    receive(core, "append_entries", AppendEntriesRequest(9, "n2", 1, 1, (), 0))
    assert (core.state, core.term) == (State.FOLLOWER, 9)


@pytest.mark.parametrize(
    ("method", "request_"),
    [("append_entries", AppendEntriesRequest(1, "n2", 1, 1, (), 0)), ("vote", VoteRequest(1, "n2", 9, 9))],
)
def test_5_1_a_request_with_a_stale_term_is_rejected(method, request_):
    core = node("n1", 1, term=5)
    response = receive(core, method, request_)
    assert response.term == 5
    assert not (response.success if method == "append_entries" else response.vote_granted)


# -- 5.2 Leader election ----------------------------------------------------------------------------------------------


def test_5_2_when_servers_start_up_they_begin_as_followers():
    assert node().state is State.FOLLOWER


def test_5_2_a_server_remains_in_follower_state_as_long_as_it_receives_valid_rpcs_from_a_leader():
    core = node("n1", 1)
    for now in range(0, 2000 * MS, 100 * MS):
        core.tick(now)
        receive(core, "append_entries", AppendEntriesRequest(1, "n2", 1, 1, (), 1), now)
        assert core.state is State.FOLLOWER


def test_5_2_leaders_send_periodic_heartbeats_to_all_followers():
    core, _ = leader(1)
    core.tick(core.deadline)
    settle(core)
    core.tick(core.deadline)
    beats = [message for message in sends(settle(core), "append_entries") if not message.request.entries]
    assert {message.to for message in beats} == {"n2", "n3"}


def test_5_2_a_follower_that_receives_no_communication_increments_its_term_votes_for_itself_and_asks_the_others():
    core = node("n1", 1)
    requests = campaign(core)
    assert (core.state, core.hard_state) == (State.CANDIDATE, HardState(2, "n1"))
    assert [message.request for message in requests] == [VoteRequest(2, "n1", 1, 1)] * 2
    assert [message.to for message in requests] == ["n2", "n3"]


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        ([], State.CANDIDATE),
        (["n2"], State.CANDIDATE),
        (["n2", "n3"], State.LEADER),
        (["n2", "n3", "n4", "n5"], State.LEADER),
    ],
)
def test_5_2_a_candidate_wins_if_it_receives_votes_from_a_majority(votes, outcome):
    core = node("n1", 1, members=FIVE)
    for request in campaign(core):
        core.step(Answered(request, VoteResponse(2, vote_granted=request.to in votes)), core.now)
    settle(core)
    assert core.state is outcome


def test_5_2_each_server_votes_for_at_most_one_candidate_in_a_term_first_come_first_served():
    core = node("n1", 1)
    assert receive(core, "vote", VoteRequest(2, "n2", 1, 1)).vote_granted
    assert not receive(core, "vote", VoteRequest(2, "n3", 1, 1)).vote_granted
    assert receive(core, "vote", VoteRequest(2, "n2", 1, 1)).vote_granted


@pytest.mark.parametrize(("term", "outcome"), [(1, State.CANDIDATE), (2, State.FOLLOWER), (3, State.FOLLOWER)])
def test_5_2_a_candidate_that_hears_from_a_legitimate_leader_returns_to_follower_state(term, outcome):
    core = node("n1", 1)
    campaign(core)
    receive(core, "append_entries", AppendEntriesRequest(term, "n2", 1, 1, (), 0), core.now)
    assert core.state is outcome


def test_5_2_when_votes_are_split_each_candidate_times_out_and_starts_a_new_election():
    core = node("n1", 1)
    for term in (2, 3, 4):
        campaign(core)
        assert (core.state, core.term) == (State.CANDIDATE, term)


def test_5_2_election_timeouts_are_chosen_randomly_from_a_fixed_interval():
    core = node("n1", 1)
    timeouts = set()
    for _ in range(50):
        core.now = 0
        core.reset_election_deadline()
        timeouts.add(core.election_deadline)
    assert 150 * MS <= min(timeouts) < max(timeouts) < 300 * MS
    assert len(timeouts) > 40


# -- 5.3 Log replication ----------------------------------------------------------------------------------------------


def test_5_3_the_leader_appends_the_command_and_issues_append_entries_in_parallel():
    core, _ = leader(1)
    core.leadership.progress["n2"].agreed(2)
    core.leadership.progress["n3"].agreed(2)
    core.step(ClientWrite("token", "x", "x"), core.now)
    messages = sends(settle(core), "append_entries")
    assert {message.to for message in messages} == {"n2", "n3"}
    assert {message.request.entries for message in messages} == {(Entry(3, 2, Normal("x")),)}


def test_5_3_an_entry_is_committed_once_it_is_on_a_majority_and_then_applied_and_answered():
    cluster = Cluster(3)
    first = cluster.run_until(cluster.settled)
    others = [name for name in cluster.nodes if name != first]
    cluster.isolate(others[0])
    written = cluster.write(first, "x")
    cluster.run_until(lambda: written.done)
    assert written.value == (2, Normal("x"))
    assert cluster.core(others[1]).log.last_index == 2


def test_5_3_followers_learn_the_commit_index_from_the_leader_and_apply_in_log_order():
    core = node("n1", 1, 1, 1)
    receive(core, "append_entries", AppendEntriesRequest(1, "n2", 3, 1, (), 2))
    assert (core.commit_index, core.last_applied) == (2, 2)


@pytest.mark.parametrize(
    ("previous", "success"), [((0, 0), True), ((1, 1), True), ((3, 2), True), ((3, 1), False), ((4, 2), False)]
)
def test_5_3_a_follower_refuses_entries_if_it_does_not_find_the_one_before(previous, success):
    core = node("n1", 1, 2, 2)
    assert receive(core, "append_entries", AppendEntriesRequest(2, "n2", *previous, (), 0)).success is success


FIGURE_7_LEADER = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)


@pytest.mark.parametrize(
    "terms",
    [
        (1, 1, 1, 4, 4, 5, 5, 6, 6),
        (1, 1, 1, 4),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
        (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
        (1, 1, 1, 4, 4, 4, 4),
        (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
    ],
    ids="abcdef",
)
def test_5_3_figure_7_the_leader_brings_every_follower_to_its_own_log(terms):
    cluster = Cluster(3, initialized=False, pre_vote=False, check_quorum=False)
    logs = {"n1": log(*FIGURE_7_LEADER), "n2": log(*FIGURE_7_LEADER), "n3": log(*terms)}
    for name, entries in logs.items():
        cluster.nodes[name].disk.entries = list(entries)
        cluster.nodes[name].disk.hard_state = HardState(7)
        cluster.restart(name)
    cluster.elect("n1")
    cluster.run_until(lambda: cluster.core("n1").state is State.LEADER)
    cluster.run_until(cluster.together)
    leaders = cluster.core("n1").log.slice(1, 12)
    assert [entry.term for entry in leaders] == [*FIGURE_7_LEADER, 8]
    assert cluster.core("n3").log.slice(1, 13) == leaders


def test_5_3_a_leader_never_overwrites_or_deletes_entries_in_its_own_log():
    core, _ = leader(1, 1, 1)
    before = core.log.slice(1, 5)
    answer = receive(core, "append_entries", AppendEntriesRequest(core.term, "n2", 1, 1, (Entry(2, 2, Blank()),), 0))
    assert answer == AppendEntriesResponse(core.term, success=False)
    assert core.log.slice(1, 5) == before


# -- 5.4 Safety -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "granted"), [((3, 2), True), ((4, 2), True), ((1, 3), True), ((2, 2), False), ((9, 1), False)]
)
def test_5_4_1_the_voter_denies_its_vote_if_its_own_log_is_more_up_to_date(last, granted):
    core = node("n1", 1, 2, 2)
    assert receive(core, "vote", VoteRequest(9, "n2", *last)).vote_granted is granted


@pytest.mark.parametrize(("index", "commits"), [(1, False), (2, False), (3, True)])
def test_5_4_2_only_entries_of_the_leaders_current_term_are_committed_by_counting_replicas(index, commits):
    core, effects = leader(1, 1)
    message = next(message for message in sends(effects, "append_entries") if message.to == "n2")
    core.step(Answered(message, AppendEntriesResponse(2, success=True, verified_index=index)), core.now)
    assert core.commit_index == (3 if commits else 0)


# -- 5.5 Follower and candidate crashes -------------------------------------------------------------------------------


def test_5_5_rpcs_are_idempotent():
    core = node("n1", 1)
    request = AppendEntriesRequest(1, "n2", 1, 1, (Entry(2, 1, Normal("x")),), 0)
    assert receive(core, "append_entries", request) == receive(core, "append_entries", request)
    assert core.log.last_index == 2


def test_5_5_rpcs_are_retried_until_the_crashed_server_restarts():
    cluster = Cluster(3)
    first = cluster.run_until(cluster.settled)
    crashed = next(name for name in cluster.nodes if name != first)
    cluster.nodes[crashed].crash()
    written = cluster.write(first, "x")
    cluster.run(2000)
    assert written.done
    cluster.nodes[crashed].start()
    cluster.run_until(cluster.together)
    assert cluster.nodes[crashed].applied[-1] == Normal("x")


# -- 6 Cluster membership changes -------------------------------------------------------------------------------------


def test_6_agreement_requires_separate_majorities_from_both_configurations():
    joint = MembershipConfig(("n1", "n2", "n3"), ("n3", "n4", "n5"))
    core = node("n3", 1, members=joint)
    granted = iter(campaign(core))
    for request in granted:
        if request.to in ("n1", "n2"):
            core.step(Answered(request, VoteResponse(2, vote_granted=True)), core.now)
    assert core.state is State.CANDIDATE, "all of the old ones, and one of three of the new"


def test_6_once_a_server_adds_the_new_configuration_to_its_log_it_uses_it_for_all_future_decisions():
    core = node("n1", 1)
    entry = Entry(2, 1, ConfigChange(MembershipConfig(("n1",))))
    receive(core, "append_entries", AppendEntriesRequest(1, "n2", 1, 1, (entry,), 0))
    assert campaign(core) == [] and core.state is State.LEADER


def test_6_new_servers_join_as_non_voting_members_first():
    cluster = Cluster(1, spare=1)
    first = cluster.run_until(cluster.settled)
    cluster.nodes["n2"].crash()
    cluster.change(first, "n1", "n2")
    written = cluster.write(first, "x")
    cluster.run_until(lambda: written.done)
    assert cluster.core(first).membership == MembershipConfig(("n1",), None, ("n2",))


def test_6_servers_disregard_request_vote_when_they_believe_a_current_leader_exists():
    core = node("n1", 1)
    receive(core, "append_entries", AppendEntriesRequest(1, "n2", 1, 1, (), 0), now=1000 * MS)
    assert receive(core, "vote", VoteRequest(5, "n3", 9, 9), now=1149 * MS) == VoteResponse(1, vote_granted=False)
    assert core.term == 1, "nor is its term updated"
    assert receive(core, "vote", VoteRequest(5, "n3", 9, 9), now=1150 * MS).vote_granted


# -- 7 Log compaction -------------------------------------------------------------------------------------------------


def test_7_each_server_takes_snapshots_independently_of_committed_entries_only():
    cluster = Cluster(3, snapshot_policy=LogsSinceLast(5), trailing_logs=0)
    first = cluster.run_until(cluster.settled)
    for number in range(20):
        cluster.write(first, number)
        cluster.run(10)
    cluster.run(200)
    for name in cluster.nodes:
        core = cluster.core(name)
        assert core.snapshot is not None and core.snapshot.index <= core.commit_index
        assert core.log.base == core.snapshot.base(), "last included index and term are kept for the consistency check"


def test_7_the_leader_sends_a_snapshot_when_it_has_discarded_the_next_entry_of_a_follower():
    cluster = Cluster(3, snapshot_policy=LogsSinceLast(5), trailing_logs=0)
    first = cluster.run_until(cluster.settled)
    behind = next(name for name in cluster.nodes if name != first)
    cluster.isolate(behind)
    for number in range(20):
        cluster.write(first, number)
        cluster.run(10)
    cluster.heal()
    cluster.run_until(cluster.together)
    assert any(message.method == "install_snapshot" and message.to == behind for _, message in cluster.sent)
    assert cluster.nodes[behind].applied == cluster.nodes[first].applied


# -- 8 Client interaction ---------------------------------------------------------------------------------------------


def test_8_a_leader_commits_a_blank_entry_at_the_start_of_its_term():
    core, effects = leader(1, 1)
    entries = sends(effects, "append_entries")[0].request.entries
    assert entries == (Entry(3, 2, Blank()),)
    assert core.log.last_term == 2


def test_8_a_leader_exchanges_heartbeats_with_a_majority_before_it_responds_to_read_only_requests():
    cluster = Cluster(3)
    first = cluster.run_until(cluster.settled)
    cluster.run(100)
    read = cluster.read(first)
    assert not read.done
    cluster.run_until(lambda: read.done)
    assert read.value == cluster.core(first).commit_index
