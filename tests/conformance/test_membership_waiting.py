"""For whom a change of the voters waits, and how it is taken back meanwhile. In virtual time, on the pure core."""

from __future__ import annotations

from raft_harness import Cluster, Outcome
from test_membership import OLD, done

from raftbed.nodes.raft import (
    ConfigChangeAbandoned,
    ConfigChangeInProgress,
    MembershipConfig,
)
from raftbed.nodes.raft.events import AddNonVoter


def waiting_for_n4() -> tuple[Cluster, str, Outcome]:
    """A change that waits for a node that does not answer; its leader, and what the operator will be told."""
    cluster = Cluster(3, spare=2)
    leader = cluster.run_until(cluster.settled)
    cluster.nodes["n4"].crash()
    changed = cluster.change(leader, "n1", "n2", "n4")
    cluster.run(1000)
    assert not changed.done
    return cluster, leader, changed


def test_a_change_that_waits_is_taken_back_by_removing_the_node_that_it_waits_for():
    cluster, leader, changed = waiting_for_n4()
    assert done(cluster, cluster.remove_non_voter(leader, "n4")) is None
    assert isinstance(changed.value, ConfigChangeAbandoned)
    assert cluster.core(leader).membership == OLD
    assert done(cluster, cluster.change(leader, "n1", "n2", "n3", "n5")) is None


def test_a_change_goes_on_when_another_node_is_removed():
    cluster = Cluster(3, spare=2)
    leader = cluster.run_until(cluster.settled)
    assert done(cluster, cluster.add_non_voter(leader, "n5")) is None
    cluster.nodes["n4"].crash()
    changed = cluster.change(leader, "n1", "n2", "n4")
    assert done(cluster, cluster.remove_non_voter(leader, "n5")) is None
    cluster.nodes["n4"].start()
    assert done(cluster, changed) is None


def test_a_change_that_waits_is_taken_back_by_asking_for_the_voters_that_there_are():
    cluster, leader, changed = waiting_for_n4()
    assert done(cluster, cluster.change(leader, *OLD.members)) is None
    assert isinstance(changed.value, ConfigChangeAbandoned)
    cluster.nodes["n4"].start()
    cluster.run(1000)
    assert cluster.core(leader).membership == MembershipConfig(OLD.members, None, ("n4",))
    assert done(cluster, cluster.change(leader, "n1", "n2", "n4")) is None


def test_the_address_of_a_node_that_a_change_waits_for_is_corrected():
    cluster, leader, changed = waiting_for_n4()
    corrected = cluster.ask(leader, lambda token: AddNonVoter(token, "n4", "right:1"))
    assert isinstance(done(cluster, cluster.add_non_voter(leader, "n5")), ConfigChangeInProgress)
    cluster.nodes["n4"].start()
    assert (done(cluster, corrected), done(cluster, changed)) == (None, None)
    assert dict(cluster.core(leader).membership.addresses)["n4"] == "right:1"


def test_a_change_that_has_begun_is_not_taken_back():
    cluster = Cluster(3, spare=1)
    leader = cluster.run_until(cluster.settled)
    changed = cluster.change(leader, "n1", "n2", "n4")
    cluster.run_until(lambda: cluster.core(leader).membership.is_joint)
    for in_force in (MembershipConfig(OLD.members, ("n1", "n2", "n4")), MembershipConfig(("n1", "n2", "n4"))):
        cluster.run_until(lambda membership=in_force: cluster.core(leader).membership == membership)
        assert not changed.done
        late = cluster.change(leader, *in_force.members)
        assert isinstance(done(cluster, late), ConfigChangeInProgress)
    assert done(cluster, changed) is None


def test_voters_that_are_down_keep_no_change_waiting():
    """One of two dead nodes is removed; the other stays a voter."""
    cluster = Cluster(5)
    leader = cluster.run_until(cluster.settled)
    first, second, staying, leaving = [name for name in cluster.founders if name != leader]
    for name in (staying, leaving):
        cluster.nodes[name].crash()
    cluster.run(1000)  # until that is noticed
    assert done(cluster, cluster.change(leader, leader, first, second, staying)) is None
    assert leaving not in cluster.core(leader).membership.members


def test_a_change_waits_for_a_majority_of_the_new_voters():
    """Else nothing could be committed any more."""
    cluster = Cluster(5)
    leader = cluster.run_until(cluster.settled)
    _, _, *down = [name for name in cluster.founders if name != leader]
    for name in down:
        cluster.nodes[name].crash()
    cluster.run(1000)  # until that is noticed
    changed = cluster.change(leader, leader, *down)
    cluster.run(1000)
    assert isinstance(done(cluster, cluster.write(leader, "meanwhile")), tuple)
    assert not cluster.core(leader).membership.is_joint
    cluster.nodes[down[0]].start()
    assert done(cluster, changed) is None


def test_a_change_waits_for_nodes_that_are_not_there_and_does_no_harm_meanwhile():
    cluster = Cluster(3, spare=2)
    leader = cluster.run_until(cluster.settled)
    for name in ("n4", "n5"):
        cluster.nodes[name].crash()
    changed = cluster.change(leader, "n1", "n4", "n5")
    assert isinstance(done(cluster, cluster.write(leader, "meanwhile")), tuple)
    cluster.run(1000)
    assert not changed.done
    assert cluster.core(leader).membership.members == OLD.members
    for name in ("n4", "n5"):
        cluster.nodes[name].start()
    assert done(cluster, changed) is None
