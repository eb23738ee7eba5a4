"""Linearizable reads (ReadIndex): raft.md sections 1 and 3. In virtual time, on the pure core."""

from __future__ import annotations

import pytest
from raft_harness import MS, Cluster

from raftbed.nodes.raft import Normal, ReadForwardToLeader, State


def peaceful(cluster: Cluster) -> str:
    """Waits until everyone follows one leader and has applied its first entry; returns the leader."""
    leader: str = cluster.run_until(cluster.settled)
    cluster.run_until(lambda: all(node.applied for node in cluster.nodes.values()))
    return leader


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_client_read_isolated_leader_fails(size):
    """It still believes that it leads when it is asked; async-raft lets a leader of three confirm itself."""
    cluster = Cluster(size)
    leader = peaceful(cluster)
    cluster.isolate(leader)
    assert cluster.core(leader).state is State.LEADER
    reads = [cluster.read(leader)]
    cluster.run(100)
    assert cluster.core(leader).state is State.LEADER
    reads.append(cluster.read(leader))
    cluster.run(1000)
    assert all(isinstance(read.value, ReadForwardToLeader) for read in reads)


@pytest.mark.parametrize("size", [3, 4, 5])
def test_a_leader_with_one_less_than_a_quorum_cannot_read(size):
    cluster = Cluster(size)
    leader = peaceful(cluster)
    others = [name for name in cluster.nodes if name != leader]
    with_leader = others[: size // 2 - 1]  # and the leader: one less than a majority
    cluster.partition([leader, *with_leader], others[size // 2 - 1 :])
    read = cluster.read(leader)
    cluster.run(1000)
    assert isinstance(read.value, ReadForwardToLeader)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_a_leader_with_a_bare_quorum_can_read(size):
    cluster = Cluster(size)
    leader = peaceful(cluster)
    others = [name for name in cluster.nodes if name != leader]
    cluster.partition([leader, *others[: size // 2]], others[size // 2 :])
    read = cluster.read(leader)
    cluster.run_until(lambda: read.done)
    assert read.value == 1, "the index that the state machine has reached"


def test_a_confirmation_that_was_asked_for_before_the_read_does_not_count():
    """The answer to the last heartbeat is on its way when the leader is cut off and asked to read."""
    cluster = Cluster(3)
    leader = peaceful(cluster)
    cluster.delay = (30 * MS, 30 * MS)
    cluster.run(200)
    cluster.run_until(lambda: cluster.sent[-1][0] == leader and cluster.sent[-1][1].at == cluster.now)
    cluster.run(31)  # the followers have answered; their answers arrive in 29 ms
    before = dict(cluster.core(leader).leadership.progress)
    contact = {name: progress.last_contact for name, progress in before.items()}
    read = cluster.read(leader)
    lost = cluster.now
    cluster.run(29.5)
    assert contact != {name: progress.last_contact for name, progress in before.items()}, "answers came in"
    assert all(progress.last_contact < lost for progress in before.values())
    assert not read.done
    cluster.run_until(lambda: read.done)


def test_concurrent_reads_share_one_round():
    cluster = Cluster(3)
    cluster.delay = (5 * MS, 5 * MS)
    leader = peaceful(cluster)
    cluster.run_until(lambda: cluster.core(leader).leadership.next_heartbeat - cluster.now > 40 * MS)
    cluster.sent.clear()
    first = cluster.read(leader)
    others = [cluster.read(leader) for _ in range(100)]
    cluster.run_until(lambda: all(read.done for read in [first, *others]))
    asked = [message for name, message in cluster.sent if name == leader]
    assert len(asked) == 4, "two peers, one round for the first and one for all that came while it went on"


def test_a_read_sees_every_write_that_was_acknowledged_before():
    cluster = Cluster(3)
    leader = peaceful(cluster)
    for number in range(20):
        write = cluster.write(leader, number)
        cluster.run_until(lambda write=write: write.done)
        read = cluster.read(leader)
        cluster.run_until(lambda read=read: read.done)
        assert read.value >= write.value[0]
        assert Normal(number) in cluster.nodes[leader].applied


def test_a_new_leader_reads_only_what_it_knows_to_be_committed():
    """The write was acknowledged by a leader that died before it could tell the others that it is committed."""
    cluster = Cluster(3)
    cluster.delay = (1 * MS, 1 * MS)
    leader = peaceful(cluster)
    write = cluster.write(leader, "x")
    cluster.run_until(lambda: write.done)
    cluster.nodes[leader].crash()
    second = cluster.run_until(cluster.leader)
    assert cluster.core(second).commit_index < write.value[0]
    read = cluster.read(second)
    cluster.run_until(lambda: read.done)
    assert read.value >= write.value[0]
    assert Normal("x") in cluster.nodes[second].applied


def test_a_follower_names_the_leader():
    cluster = Cluster(3)
    leader = peaceful(cluster)
    follower = next(name for name in cluster.nodes if name != leader)
    read = cluster.read(follower)
    cluster.run_until(lambda: read.done)
    assert isinstance(read.value, ReadForwardToLeader)
    assert read.value.leader == leader


def test_a_leader_that_is_deposed_lets_its_reads_go():
    cluster = Cluster(3)
    leader = peaceful(cluster)
    cluster.isolate(leader)
    read = cluster.read(leader)
    waiting = cluster.read(leader)  # for the next round
    cluster.run_until(lambda: read.done and waiting.done)
    assert {type(read.value), type(waiting.value)} == {ReadForwardToLeader}
    assert read.value.leader is None, "it knows of nobody else"
