"""Who takes part, and how that changes: raft.md sections 1, 2 and 4, membership. In virtual time, on the pure core."""

from __future__ import annotations

from random import Random

import pytest
from raft_harness import MS, Cluster, Outcome

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    Blank,
    Config,
    ConfigChange,
    ConfigChangeInProgress,
    ConfigChangeUnknown,
    Entry,
    HardState,
    InoperableConfig,
    MembershipConfig,
    NodeNotLeader,
    Noop,
    Normal,
    State,
    VoteResponse,
)
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import AddNonVoter, Answered, Durable, Received, Send

OLD = MembershipConfig(("n1", "n2", "n3"))
JOINT = MembershipConfig(("n1", "n2", "n3"), ("n1", "n4", "n5"))


def started(name: str, *memberships: MembershipConfig) -> Core:
    """A node of term 1 whose log holds these memberships."""
    entries = [Entry(index, 1, ConfigChange(membership)) for index, membership in enumerate(memberships, 1)]
    core = Core(name, Config("test", pre_vote=False), Random(1), hard_state=HardState(1), entries=entries, now=0)
    core.start()
    core.ready()
    return core


def append(core: Core, previous: tuple[int, int], *entries: Entry, term: int = 1, commit: int = 0) -> None:
    core.step(Received("token", "append_entries", AppendEntriesRequest(term, "n2", *previous, entries, commit)), 0)
    core.ready()
    core.step(Durable(), 0)


def done(cluster: Cluster, asked: Outcome, limit: float = 5000) -> object:
    """What came of it, once it has."""
    cluster.run_until(lambda: asked.done, limit)
    return asked.value


def config_entries(cluster: Cluster, name: str) -> list[MembershipConfig]:
    """The memberships in a node's log, in order."""
    applied = cluster.nodes[name].applied
    return [payload.membership for payload in applied if isinstance(payload, ConfigChange)]


# -- a configuration is in force when it is appended ------------------------------------------------------------------


def test_config_on_append():
    core = started("n3", OLD)
    after = MembershipConfig(("n1", "n2"))
    append(core, (1, 1), Entry(2, 1, ConfigChange(after)))
    assert (core.commit_index, core.membership) == (0, after)
    assert core.peers() == ["n1", "n2"]


def test_config_rollback_on_truncate():
    core = started("n3", OLD, MembershipConfig(("n1", "n2")))
    append(core, (1, 1), Entry(2, 2, Blank()), term=2, commit=2)
    assert core.membership == OLD
    assert core.state is State.FOLLOWER


def test_a_rollback_can_take_the_vote_away_again():
    core = started("n4", OLD)
    assert core.state is State.NON_VOTER
    append(core, (1, 1), Entry(2, 1, ConfigChange(MembershipConfig(("n1", "n2", "n3", "n4")))), commit=1)
    assert core.state is State.FOLLOWER
    append(core, (1, 1), Entry(2, 2, Normal("x")), term=2, commit=2)
    assert core.state is State.NON_VOTER


# -- joint consensus: two majorities ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("voters", "wins"),
    [
        ({"n2"}, False),  # a majority of the old ones only
        ({"n4"}, False),  # of the new ones only
        ({"n2", "n3"}, False),
        ({"n4", "n5"}, False),
        ({"n2", "n4"}, True),
        ({"n3", "n5"}, True),
    ],
)
def test_joint_election_two_majorities(voters, wins):
    core = started("n1", OLD, JOINT)
    core.tick(core.deadline)
    asked = [effect for effect in core.ready().effects if isinstance(effect, Send)]
    assert {message.to for message in asked} == {"n2", "n3", "n4", "n5"}
    core.step(Durable(), core.now)
    for message in asked:
        if message.to in voters:
            core.step(Answered(message, VoteResponse(core.term, vote_granted=True)), core.now)
    assert (core.state is State.LEADER) == wins


@pytest.mark.parametrize(
    ("holders", "commits"),
    [({"n2", "n3"}, False), ({"n4", "n5"}, False), ({"n2", "n4"}, True), ({"n2", "n3", "n4"}, True)],
)
def test_joint_commit_two_majorities(holders, commits):
    core = started("n1", OLD, JOINT)
    core.campaign()
    core.ready()
    core.step(Durable(), 0)
    core.votes |= {"n2", "n4"}
    core.become_leader()
    core.ready()
    core.step(Durable(), 0)
    for name in holders:
        core.leadership.progress[name].agreed(core.log.last_index)
    core.advance_commit_as_leader()
    assert (core.commit_index == core.log.last_index) == commits


# -- add_non_voter ----------------------------------------------------------------------------------------------------


def test_add_non_voter_returns_at_line_rate():
    cluster = Cluster(1, spare=1, max_payload_entries=3)
    leader = cluster.run_until(cluster.settled)
    for number in range(50):
        cluster.write(leader, number)
    cluster.run(20)
    added = cluster.add_non_voter(leader, "n2")
    assert done(cluster, added) is None
    assert cluster.core("n2").log.last_index > cluster.core(leader).log.last_index - 3
    assert cluster.core("n2").state is State.NON_VOTER


def test_add_non_voter_waits_for_a_node_that_is_not_there_yet():
    cluster = Cluster(1, spare=1)
    leader = cluster.run_until(cluster.settled)
    cluster.nodes["n2"].crash()
    added = cluster.add_non_voter(leader, "n2")
    cluster.run(1000)
    assert not added.done
    cluster.nodes["n2"].start()
    assert done(cluster, added) is None


def test_non_voters_are_sent_the_log_and_not_counted():
    cluster = Cluster(3, spare=1, check_quorum=False)
    leader = cluster.run_until(cluster.settled)
    done(cluster, cluster.add_non_voter(leader, "n4"))
    cluster.partition([leader, "n4"], [name for name in ("n1", "n2", "n3") if name != leader])
    written = cluster.write(leader, "x")
    cluster.run(500)
    assert cluster.core("n4").log.last_index == cluster.core(leader).log.last_index
    assert not written.done


def test_add_non_voter_of_a_known_node_is_a_noop():
    cluster = Cluster(3, spare=1)
    leader = cluster.run_until(cluster.settled)
    done(cluster, cluster.add_non_voter(leader, "n4"))
    for name in cluster.nodes:
        assert isinstance(done(cluster, cluster.add_non_voter(leader, name)), Noop)


def test_a_non_voter_is_removed():
    cluster = Cluster(1, spare=2)
    leader = cluster.run_until(cluster.settled)
    done(cluster, cluster.add_non_voter(leader, "n2"))
    assert done(cluster, cluster.remove_non_voter(leader, "n2")) is None
    assert cluster.core(leader).membership == MembershipConfig(("n1",))
    cluster.run(100)
    assert not cluster.core(leader).leadership.progress, "it was told, and is left alone"
    assert isinstance(done(cluster, cluster.remove_non_voter(leader, "n2")), Noop)
    assert isinstance(done(cluster, cluster.remove_non_voter(leader, "n1")), Noop), "a voter is not removed like that"


def test_whoever_waits_for_a_non_voter_that_is_removed_is_told():
    cluster = Cluster(1, spare=1)
    leader = cluster.run_until(cluster.settled)
    cluster.nodes["n2"].crash()
    added = cluster.add_non_voter(leader, "n2")
    cluster.run(10)
    assert done(cluster, cluster.remove_non_voter(leader, "n2")) is None
    assert isinstance(added.value, Noop)


def test_a_wrong_address_of_a_non_voter_is_corrected_by_adding_it_again():
    cluster = Cluster(1, spare=1)
    leader = cluster.run_until(cluster.settled)
    for address in ("10.0.0.9:1", "10.0.0.2:8401"):
        outcome = cluster.ask(leader, lambda token, address=address: AddNonVoter(token, "n2", address))
        assert done(cluster, outcome) is None
    assert cluster.core(leader).membership.addresses == (("n2", "10.0.0.2:8401"),)
    again = cluster.ask(leader, lambda token: AddNonVoter(token, "n2", "10.0.0.2:8401"))
    assert isinstance(done(cluster, again), Noop)


def test_only_the_leader_changes_the_membership():
    cluster = Cluster(3, spare=1)
    leader = cluster.run_until(cluster.settled)
    follower = next(name for name in cluster.founders if name != leader)
    for asked in (
        cluster.add_non_voter(follower, "n4"),
        cluster.change(follower, "n4"),
        cluster.remove_non_voter(follower, "n4"),
    ):
        refused = done(cluster, asked)
        assert isinstance(refused, NodeNotLeader)
        assert refused.leader == leader


def test_addresses_are_in_the_log_and_stay_there():
    cluster = Cluster(1, spare=1)
    leader = cluster.run_until(cluster.settled)
    cluster.ask(leader, lambda token: AddNonVoter(token, "n2", "10.0.0.2:8401"))
    done(cluster, cluster.change(leader, "n1", "n2"))
    cluster.run_until(cluster.together)
    cluster.restart("n2")
    assert cluster.core("n2").membership.addresses == (("n2", "10.0.0.2:8401"),)


# -- change_membership ------------------------------------------------------------------------------------------------


def test_change_membership_by_joint_consensus():
    cluster = Cluster(3, spare=2)
    leader = cluster.run_until(cluster.settled)
    assert done(cluster, cluster.change(leader, leader, "n4", "n5")) is None
    cluster.run_until(cluster.together)
    wanted = tuple(sorted((leader, "n4", "n5")))
    assert config_entries(cluster, leader) == [
        OLD,
        MembershipConfig(OLD.members, None, ("n4", "n5")),
        MembershipConfig(OLD.members, wanted),
        MembershipConfig(wanted),
    ]


def test_change_membership_without_anyone_is_inoperable():
    cluster = Cluster(1)
    leader = cluster.run_until(cluster.settled)
    assert isinstance(done(cluster, cluster.change(leader)), InoperableConfig)


def test_change_membership_to_what_it_is_already():
    cluster = Cluster(3)
    leader = cluster.run_until(cluster.settled)
    assert isinstance(done(cluster, cluster.change(leader, "n3", "n1", "n2")), Noop)


def test_one_change_at_a_time():
    cluster = Cluster(3, spare=2)
    leader = cluster.run_until(cluster.settled)
    first = cluster.change(leader, "n1", "n2", "n3", "n4")
    assert isinstance(done(cluster, cluster.change(leader, "n1", "n2", "n3", "n5")), ConfigChangeInProgress)
    assert isinstance(done(cluster, cluster.add_non_voter(leader, "n5")), ConfigChangeInProgress)
    assert done(cluster, first) is None
    assert done(cluster, cluster.change(leader, "n1", "n2", "n3", "n5")) is None


def test_a_new_leader_completes_the_change():
    """The joint configuration says where it leads; whoever leads next goes there."""
    cluster = Cluster(3, spare=1)
    leader = cluster.run_until(cluster.settled)
    changed = cluster.change(leader, "n1", "n2", "n3", "n4")
    cluster.run_until(lambda: cluster.core(leader).membership.is_joint)
    cluster.run_until(lambda: sum(node.core.membership.is_joint for node in cluster.nodes.values()) >= 3)
    cluster.isolate(leader)
    everyone = cluster.run_until(lambda: cluster.leader() not in (None, leader) and cluster.leader())
    cluster.run_until(lambda: cluster.core(everyone).membership == MembershipConfig(("n1", "n2", "n3", "n4")))
    cluster.heal()
    assert isinstance(done(cluster, changed), ConfigChangeUnknown)
    cluster.run_until(cluster.together)


def test_promoted_non_voters_are_counted():
    """async-raft never counts them: its grown one-node leader commits alone."""
    cluster = Cluster(1, spare=2, check_quorum=False)
    leader = cluster.run_until(cluster.settled)
    done(cluster, cluster.change(leader, "n1", "n2", "n3"))
    cluster.isolate(leader)
    written, read = cluster.write(leader, "x"), cluster.read(leader)
    cluster.run(1000)
    assert not written.done and not read.done


def test_dynamic_membership():
    """From one node to five; the old leader is cut off, replaced, and comes back without deposing its successor."""
    cluster = Cluster(1, spare=4)
    leader = cluster.run_until(cluster.settled)
    for size in (3, 5):
        members = [f"n{number}" for number in range(1, size + 1)]
        assert done(cluster, cluster.change(leader, *members)) is None
    cluster.run_until(cluster.together)
    cluster.isolate("n1")
    successor = cluster.run_until(lambda: cluster.leader() not in (None, "n1") and cluster.leader())
    cluster.run(1000)
    term = cluster.core(successor).term
    assert cluster.core("n1").state is not State.LEADER, "it heard from no quorum"
    cluster.heal()
    assert isinstance(done(cluster, cluster.write(successor, "x")), tuple)
    cluster.run_until(cluster.together)
    cluster.run(1000)
    assert (cluster.leader(), cluster.core("n1").term, cluster.core("n1").leader_id) == (successor, term, successor)


def test_stepdown_removed_leader():
    """{0, 1} -> {1, 2, 3}: the leader leads until the change is committed, is no voter then, and the rest goes on."""
    cluster = Cluster(2, spare=2)
    cluster.run_until(cluster.settled)
    cluster.transfer(cluster.leader(), "n1")
    cluster.run_until(lambda: cluster.settled() == "n1")
    changed = cluster.change("n1", "n2", "n3", "n4")
    assert done(cluster, changed) is None
    assert config_entries(cluster, "n1")[-1].members == ("n2", "n3", "n4"), "committed and applied"
    cluster.run_until(lambda: cluster.core("n1").state is State.NON_VOTER)
    before = cluster.now
    successor = cluster.run_until(lambda: cluster.leader())
    assert cluster.now - before < cluster.config.election_timeout_min * MS, "it was handed over"
    term = cluster.core(successor).term
    assert isinstance(done(cluster, cluster.write(successor, "x")), tuple)
    cluster.run(2000)
    assert (cluster.core(successor).term, cluster.core("n1").state) == (term, State.NON_VOTER), "left in peace"


@pytest.mark.parametrize("seed", range(20))
def test_removed_voters_are_told_whatever_overtakes_what(seed):
    """A heartbeat that names an earlier entry tells nobody that a later one is committed, though it says so."""
    cluster = Cluster(5, seed=seed, heartbeat_interval=2, election_timeout_min=400, election_timeout_max=500)
    leader = cluster.run_until(cluster.settled)
    cluster.run_until(cluster.together)
    cluster.delay = (MS // 2, 8 * MS)
    stay = [leader, *[name for name in cluster.nodes if name != leader][:2]]
    assert done(cluster, cluster.change(leader, *stay)) is None
    cluster.run(150)  # less than it takes to stand for election
    removed = [core for name in cluster.nodes if name not in stay and (core := cluster.core(name))]
    assert {core.state for core in removed} == {State.NON_VOTER}


def test_a_removed_voter_is_a_non_voter_after_a_restart_too():
    """Its log says that it was a voter once, and nobody tells it any more what is committed."""
    cluster = Cluster(3)
    leader = cluster.run_until(cluster.settled)
    follower = next(name for name in cluster.nodes if name != leader)
    rest = [name for name in cluster.nodes if name not in (leader, follower)]
    assert done(cluster, cluster.change(leader, leader, *rest)) is None
    cluster.run_until(lambda: cluster.core(follower).state is State.NON_VOTER)
    assert done(cluster, cluster.change(leader, *rest)) is None
    cluster.run_until(lambda: cluster.core(leader).state is State.NON_VOTER)
    cluster.run(50)
    for name in (leader, follower):
        cluster.restart(name)
        cluster.run(1000)
        assert (cluster.core(name).state, cluster.core(name).votes) == (State.NON_VOTER, set())
    assert cluster.leader() == rest[0]


def test_a_leader_that_is_removed_does_not_count_itself():
    cluster = Cluster(2, spare=1, check_quorum=False)
    cluster.run_until(cluster.settled)
    cluster.transfer(cluster.leader(), "n1")
    cluster.run_until(lambda: cluster.settled() == "n1")
    changed = cluster.change("n1", "n2")
    core = cluster.core("n1")
    cluster.run_until(lambda: core.membership == MembershipConfig(("n2",)))
    cluster.isolate("n1")
    at = core.log.membership_index
    cluster.run(1000)
    assert core.commit_index < at
    assert not changed.done


def test_an_old_voter_that_alone_has_the_new_configuration_is_still_elected():
    """Thesis 4.2.2: it does not count its own vote, but nobody else could be elected."""
    joint, new = MembershipConfig(("n1", "n2"), ("n2",)), MembershipConfig(("n2",))
    old = MembershipConfig(("n1", "n2"))
    cluster = Cluster(2, initialized=False)
    entries = [Entry(index, 1, ConfigChange(membership)) for index, membership in enumerate((old, joint, new), 1)]
    for name, count in (("n1", 3), ("n2", 2)):
        node = cluster.nodes[name]
        node.disk.hard_state, node.disk.entries = HardState(1), entries[:count]
        cluster.restart(name)
    cluster.run_until(lambda: cluster.core("n1").state is State.NON_VOTER)
    assert cluster.run_until(lambda: cluster.leader() == "n2")
    cluster.run_until(lambda: cluster.core("n2").membership == new)


def test_a_removed_node_that_was_not_told_deposes_nobody():
    cluster = Cluster(4)
    leader = cluster.run_until(cluster.settled)
    removed = next(name for name in cluster.nodes if name != leader)
    cluster.isolate(removed)
    assert done(cluster, cluster.change(leader, *[name for name in cluster.nodes if name != removed])) is None
    term = cluster.core(leader).term
    cluster.heal()
    cluster.run(3000)
    assert (cluster.leader(), cluster.core(leader).term) == (leader, term)
