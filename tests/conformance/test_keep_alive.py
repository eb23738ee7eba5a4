"""What is said while a disk works: heartbeats go on, both ways, and nobody claims anything that is not on disk.

What depends on a write waits for its sync (Raft thesis 10.2.1). In virtual time, on the pure core.
"""

from __future__ import annotations

from random import Random

import pytest
from raft_harness import MS, Cluster

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
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
from raftbed.nodes.raft.events import Answered, Durable, Received, Respond, Send

THREE = MembershipConfig(("n1", "n2", "n3"))
FOR_EVER = 10**9 * MS


def peaceful(size: int = 3, **options: int) -> tuple[Cluster, str, list[str]]:
    """A cluster whose members follow one leader; with that leader and its followers."""
    cluster = Cluster(size, **options)
    leader: str = cluster.run_until(cluster.settled)
    cluster.run_until(cluster.together)
    return cluster, leader, [name for name in cluster.nodes if name != leader]


def stall(cluster: Cluster, name: str, milliseconds: float) -> None:
    """From now on, each write of a node takes so long."""
    cluster.nodes[name].stall = int(milliseconds * MS)


# -- a leader ---------------------------------------------------------------------------------------------------------


def test_a_leader_whose_disk_hangs_for_a_second_goes_on_leading() -> None:
    cluster, leader, _ = peaceful()
    term = cluster.core(leader).term
    stall(cluster, leader, 1000)
    write = cluster.write(leader, "slow")
    cluster.run(990)
    assert cluster.nodes[leader].writing is not None
    assert cluster.settled() == leader
    assert cluster.core(leader).term == term
    cluster.run_until(lambda: write.done)
    assert write.value == (cluster.core(leader).log.last_index, Normal("slow"))
    assert {node.core.term for node in cluster.nodes.values() if node.core} == {term}


@pytest.mark.parametrize("timeouts", [0, 1, 4, 10])
def test_a_leader_whose_disk_hangs_for_ever_is_replaced_after_the_configured_time(timeouts: int) -> None:
    cluster, leader, others = peaceful(disk_stall_timeouts=timeouts)
    stall(cluster, leader, FOR_EVER)
    cluster.write(leader, "never")
    begun = cluster.now
    successor = cluster.run_until(lambda: (now := cluster.leader()) != leader and now, 10_000)
    assert successor in others
    silent_from = timeouts * cluster.config.election_timeout_max * MS
    assert cluster.now >= begun + silent_from  # not before
    assert cluster.now <= begun + silent_from + 4 * cluster.config.election_timeout_max * MS  # nor much later
    write = cluster.write(successor, "there is a quorum of disks that work")
    cluster.run_until(lambda: write.done)
    assert isinstance(write.value, tuple)


def test_a_leader_that_is_slow_and_alone_steps_down_by_check_quorum() -> None:
    """Heartbeats during a write stand for nothing: it is the answers to them that count."""
    cluster, leader, _ = peaceful()
    cluster.isolate(leader)
    stall(cluster, leader, 600)
    cluster.write(leader, "lost")
    cluster.run(700)
    assert cluster.core(leader).state is not State.LEADER


def test_answers_that_come_during_a_leaders_own_write_count_for_check_quorum() -> None:
    cluster, leader, _ = peaceful(heartbeat_interval=100)
    stall(cluster, leader, 1150)  # much longer than the 300 ms without contact for which it would step down
    write = cluster.write(leader, "slow")
    cluster.run_until(lambda: write.done)
    assert isinstance(write.value, tuple)
    assert cluster.core(leader).state is State.LEADER


def test_one_slow_write_after_the_other_does_not_keep_a_leader_from_looking_for_its_quorum() -> None:
    cluster, leader, _ = peaceful()
    stall(cluster, leader, 60)  # a heartbeat falls due in each of them
    cluster.isolate(leader)
    for _ in range(20):
        cluster.write(leader, "lost")
        cluster.run(30)
    assert cluster.core(leader).state is not State.LEADER


def test_a_heartbeat_during_a_write_promises_nothing_of_that_write() -> None:
    cluster, leader, others = peaceful()
    committed = cluster.core(leader).commit_index
    cluster.isolate(leader)
    stall(cluster, leader, 500)
    cluster.write(leader, "not on disk")
    sent = len(cluster.sent)
    cluster.run(400)
    beats = [m.request for sender, m in cluster.sent[sent:] if sender == leader and m.method == "append_entries"]
    assert len(beats) >= len(others) * 6
    for beat in beats:
        assert isinstance(beat, AppendEntriesRequest)
        assert beat.entries == ()
        assert beat.leader_commit == committed


# -- a follower -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("milliseconds", [1000, FOR_EVER / MS])
def test_followers_with_slow_disks_neither_stand_nor_make_the_leader_step_down(milliseconds: float) -> None:
    cluster, leader, others = peaceful()
    term = cluster.core(leader).term
    for name in others:
        stall(cluster, name, milliseconds)
    write = cluster.write(leader, "x")
    cluster.run(990)
    assert not write.done  # that the followers answer heartbeats is no acknowledgement
    assert cluster.core(leader).commit_index < cluster.core(leader).log.last_index
    for _ in range(50):
        cluster.run(100)
        assert cluster.leader() == leader
    assert {cluster.core(name).term for name in cluster.nodes} == {term}
    assert write.done is (milliseconds == 1000)


def test_a_follower_whose_disk_hangs_is_sent_no_entries_again_and_again() -> None:
    cluster, leader, (slow, _) = peaceful()
    stall(cluster, slow, FOR_EVER)
    for number in range(100):
        cluster.write(leader, number)
        cluster.run(20)
    assert len(cluster.nodes[slow].inbox) < 10
    late = [m for sender, m in cluster.sent if sender == leader and m.to == slow and m.at > cluster.now - 1000 * MS]
    assert late
    assert all(m.request.entries == () for m in late if isinstance(m.request, AppendEntriesRequest))


def test_a_follower_catches_up_when_its_disk_is_well_again() -> None:
    cluster, leader, (slow, _) = peaceful()
    stall(cluster, slow, 700)
    for number in range(30):
        cluster.write(leader, number)
        cluster.run(20)
    cluster.nodes[slow].stall = None
    cluster.run_until(cluster.together)


def test_reads_are_confirmed_by_followers_whose_disks_work() -> None:
    """Whoever followed after the question came had elected nobody else by then; that needs no sync of its log."""
    cluster, leader, others = peaceful()
    for name in others:
        stall(cluster, name, FOR_EVER)
    cluster.write(leader, "x")
    cluster.run(5)
    read = cluster.read(leader)
    cluster.run_until(lambda: read.done)
    assert read.value == read.wanted


def follower() -> Core:
    """A follower of n1 in term 2, at time 0, with two entries on disk."""
    entries = (Entry(1, 1, ConfigChange(THREE)), Entry(2, 2, Normal("b")))
    core = Core("n2", Config("test"), Random(1), hard_state=HardState(2), entries=entries, now=0)
    core.start()
    core.step(Received("first", "append_entries", AppendEntriesRequest(2, "n1", 2, 2, (), 1)), 0)
    core.ready()
    return core


def beat(term: int = 2, leader: str = "n1", previous: tuple[int, int] = (2, 2), commit: int = 0) -> Received:
    return Received("beat", "append_entries", AppendEntriesRequest(term, leader, *previous, (), commit))


def writing_entry(core: Core) -> None:
    """Entry 3 came, and is not on disk yet."""
    entry = Entry(3, 2, Normal("c"))
    core.step(Received("entry", "append_entries", AppendEntriesRequest(2, "n1", 2, 2, (entry,), 0)), 0)
    ready = core.ready()
    assert ready is not None and ready.persist is not None and ready.persist.entries == (entry,)


def test_a_keep_alive_says_nothing_of_entries_that_are_not_synced() -> None:
    core = follower()
    writing_entry(core)
    answer = core.hear(beat(previous=(3, 2), commit=3), 10 * MS)
    assert answer == AppendEntriesResponse(2, success=False, verified_index=0, conflict=None)
    assert answer.is_keep_alive
    assert core.commit_index == 1  # nor is anything taken from the heartbeat
    core.step(Durable(), 20 * MS)
    assert core.commit_index == 3  # until the disk is done: it may have been this leader's last one
    core.step(beat(previous=(3, 2), commit=3), 20 * MS)
    ready = core.ready()
    assert ready is not None
    assert Respond("beat", AppendEntriesResponse(2, success=True, verified_index=3)) in ready.effects


@pytest.mark.parametrize(
    ("previous", "committed"),
    [
        ((2, 2), 2),  # of entry 3 it is not known that the leader has it, too
        ((3, 1), 1),  # another entry
        ((4, 2), 1),  # one that the log lacks
        ((0, 0), 1),
    ],
)
def test_what_a_heartbeat_calls_committed_is_verified_when_the_disk_is_done(
    previous: tuple[int, int], committed: int
) -> None:
    core = follower()
    writing_entry(core)
    assert core.hear(beat(previous=previous, commit=4), 10 * MS) is not None
    core.step(Durable(), 20 * MS)
    assert core.commit_index == committed


def test_a_heartbeat_counts_as_heard_while_the_disk_works() -> None:
    core = follower()
    writing_entry(core)
    assert core.hear(beat(), 900 * MS) is not None
    core.step(Durable(), 1000 * MS)
    core.step(Received("vote", "vote", VoteRequest(3, "n3", 9, 2)), 1000 * MS)
    core.tick(1000 * MS)
    assert core.state is State.FOLLOWER
    ready = core.ready()
    assert ready is not None
    assert Respond("vote", VoteResponse(2, vote_granted=False)) in ready.effects  # a live leader is protected


@pytest.mark.parametrize(
    "event",
    [
        beat(term=1),
        beat(term=3),
        beat(leader="n3"),
        Received("entry", "append_entries", AppendEntriesRequest(2, "n1", 3, 2, (Entry(4, 2, Normal("d")),), 0)),
        Received("vote", "vote", VoteRequest(3, "n3", 9, 2)),
        Received("pre-vote", "pre_vote", VoteRequest(3, "n3", 9, 2)),
    ],
)
def test_everything_but_a_heartbeat_of_the_present_leader_waits_for_the_disk(event: Received) -> None:
    core = follower()
    writing_entry(core)
    before = core.election_deadline
    assert core.hear(event, 10 * MS) is None
    assert core.election_deadline == before


def test_a_term_and_a_vote_that_are_not_synced_are_not_leaked() -> None:
    """n2 grants n3 its vote in term 3; n3 wins and sends a heartbeat before that vote is on the disk of n2."""
    core = follower()
    core.step(Received("vote", "vote", VoteRequest(3, "n3", 9, 2)), 1000 * MS)
    ready = core.ready()
    assert ready is not None and ready.persist is not None
    assert ready.persist.hard_state == HardState(3, "n3")
    assert core.hear(beat(term=3, leader="n3"), 1001 * MS) is None
    core.step(Durable(), 1002 * MS)
    core.step(beat(term=3, leader="n3"), 1003 * MS)
    core.ready()
    core.step(
        Received("entry", "append_entries", AppendEntriesRequest(3, "n3", 2, 2, (Entry(3, 3, Normal("c")),), 0)),
        1004 * MS,
    )
    core.ready()
    assert core.hear(beat(term=3, leader="n3"), 1005 * MS) == AppendEntriesResponse(3, success=False)


def test_a_term_that_came_with_entries_is_not_leaked_before_it_is_synced() -> None:
    core = follower()
    entry = Entry(3, 3, Normal("c"))
    core.step(Received("entry", "append_entries", AppendEntriesRequest(3, "n3", 2, 2, (entry,), 0)), 1 * MS)
    core.ready()
    assert core.leader_id == "n3"
    assert core.hear(beat(term=3, leader="n3"), 2 * MS) is None


def test_a_keep_alive_is_no_agreement() -> None:
    """A leader that looks for the place where the logs agree learns nothing of it from a keep-alive."""
    cluster, leader, (name, _) = peaceful()
    core = cluster.core(leader)
    assert core.leadership is not None
    stream = core.leadership.progress[name]
    stream.probe_from(1)
    matched, following = stream.match_index, stream.next_index
    sent = Send(name, "append_entries", AppendEntriesRequest(core.term, leader, 1, 1, (), 0), 0, cluster.now)
    core.step(Answered(sent, AppendEntriesResponse(core.term, success=False)), cluster.now)
    assert stream.probing
    assert (stream.match_index, stream.next_index) == (matched, following)
    assert stream.last_contact == cluster.now
