"""Beyond async-raft: raft.md section 3, leadership transfer, lease reads, triggers, limits. In virtual time."""

from __future__ import annotations

import pytest
from raft_harness import MS, Cluster

from raftbed.nodes.raft import (
    ReadForwardToLeader,
    ReadOverloaded,
    State,
    TransferNotLeader,
    TransferRefused,
    TransferTimedOut,
    VoteRequest,
    VoteResponse,
    WriteForwardToLeader,
)
from raftbed.nodes.raft.events import Answered, Heartbeat, Send


def ready(size: int = 3, **options: object) -> tuple[Cluster, str, list[str]]:
    """A cluster at rest; its leader, and the others."""
    cluster = Cluster(size, **options)
    leader = cluster.run_until(cluster.settled)
    cluster.run_until(cluster.together)
    return cluster, leader, [name for name in cluster.founders if name != leader]


# -- leadership transfer ----------------------------------------------------------------------------------------------


def test_transfer_to_a_target():
    cluster, leader, (_, target) = ready()
    before = cluster.now
    handed = cluster.transfer(leader, target)
    cluster.run_until(lambda: cluster.leader() == target)
    assert cluster.now - before < cluster.config.election_timeout_min * MS, "nobody waited for a timeout"
    cluster.run_until(lambda: handed.done)
    assert handed.value is None
    assert cluster.core(leader).state is State.FOLLOWER


def test_transfer_without_a_target_goes_to_whoever_has_most():
    cluster, leader, (straggler, able) = ready()
    cluster.isolate(straggler)
    cluster.run(50)
    cluster.write(leader, "x")
    cluster.run(50)
    cluster.heal()
    cluster.transfer(leader)
    assert cluster.run_until(lambda: cluster.leader() == able)


def test_transfer_waits_for_the_target_to_catch_up():
    cluster, leader, (_, target) = ready(max_payload_entries=2, max_inflight_messages=1, election_timeout_max=3000)
    cluster.isolate(target)
    for number in range(100):
        cluster.write(leader, number)
        cluster.run(2)
    cluster.heal()
    cluster.transfer(leader, target)
    cluster.run_until(lambda: cluster.leader() == target, 10_000)
    assert cluster.core(target).log.last_index > 100


def test_transfer_stops_proposals():
    cluster, leader, (_, target) = ready()
    cluster.isolate(target)
    handed = cluster.transfer(leader, target)
    written = cluster.write(leader, "x")
    cluster.run_until(lambda: written.done)
    assert isinstance(written.value, WriteForwardToLeader)
    assert (written.value.payload, written.value.leader) == ("x", None)
    assert not handed.done


def test_transfer_is_aborted_on_timeout():
    cluster, leader, (_, target) = ready()
    cluster.isolate(target)
    handed = cluster.transfer(leader, target)
    cluster.run_until(lambda: handed.done)
    assert isinstance(handed.value, TransferTimedOut)
    written = cluster.write(leader, "x")
    cluster.run_until(lambda: written.done)
    assert isinstance(written.value, tuple), "the leader leads on, and takes writes again"


def test_transfer_passes_the_live_leader_check_and_nothing_else():
    """TimeoutNow of an older term, or while another leads, is nothing."""
    cluster, leader, (_, target) = ready()
    cluster.transfer(leader, target)
    cluster.run_until(lambda: cluster.settled() == target)
    stale = next(message for _, message in cluster.sent if message.method == "timeout_now")
    term = cluster.core(target).term
    cluster.carry(cluster.nodes[leader], stale)
    cluster.run(1000)
    assert (cluster.leader(), cluster.core(target).term) == (target, term)


def test_transfer_refused():
    cluster, leader, (follower, other) = ready(spare=1)
    refused = cluster.transfer(follower, other)
    assert isinstance(refused.value, TransferNotLeader)
    assert refused.value.leader == leader
    unknown = cluster.transfer(leader, "n4")
    cluster.run(1)
    assert isinstance(unknown.value, TransferRefused)
    cluster.isolate(follower)
    cluster.transfer(leader, follower)
    second = cluster.transfer(leader, other)
    cluster.run(1)
    assert isinstance(second.value, TransferRefused)


def test_transfer_to_oneself_is_done():
    cluster, leader, _ = ready()
    handed = cluster.transfer(leader, leader)
    cluster.run(1)
    assert handed.done and handed.value is None and cluster.leader() == leader


# -- lease reads ------------------------------------------------------------------------------------------------------


def test_lease_reads_are_off_by_default():
    cluster, leader, _ = ready()
    assert cluster.config.read_mode == "read-index"
    read = cluster.read(leader)
    assert not read.done, "it asks"


def test_lease_read_asks_nobody():
    cluster, leader, _ = ready(read_mode="lease")
    cluster.run(60)
    count = len(cluster.sent)
    read = cluster.read(leader)
    assert read.done and isinstance(read.value, int)
    assert len(cluster.sent) == count


def test_lease_is_counted_from_the_time_of_sending():
    """An answer that was on its way for long proves little: the follower may have promised itself to others since."""
    cluster, leader, others = ready(read_mode="lease", check_quorum=False)
    core = cluster.core(leader)
    cluster.isolate(leader)
    cluster.run(200)
    old = next(message for name, message in reversed(cluster.sent) if name == leader and message.to in others)
    core.leadership.progress[old.to].answered(old)
    core.leadership.progress[old.to].acked_at = cluster.now - 140 * MS
    assert not core.lease_holds(core.leadership)
    core.leadership.progress[old.to].acked_at = cluster.now - 130 * MS
    core.now = cluster.now
    assert core.lease_holds(core.leadership)


def test_lease_is_shorter_than_the_least_election_timeout_by_the_drift():
    for drift, still in ((0, 149), (10, 134), (50, 74)):
        cluster, leader, _ = ready(read_mode="lease", lease_drift_percent=drift, check_quorum=False)
        core = cluster.core(leader)
        for progress in core.leadership.progress.values():
            progress.acked_at = core.now
        began = core.now
        core.now = began + still * MS
        assert core.lease_holds(core.leadership)
        core.now = began + (still + 1) * MS
        assert not core.lease_holds(core.leadership)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_lease_of_an_isolated_leader_ends_before_another_can_lead(size):
    cluster, leader, others = ready(size, read_mode="lease", check_quorum=False)
    cluster.isolate(leader)
    while cluster.leader() == leader and cluster.now < 3000 * MS:
        cluster.run(1)
        if any(cluster.core(name).term > cluster.core(leader).term for name in others):
            break
    served = cluster.read(leader)
    assert not isinstance(served.value, int)


def test_lease_is_given_up_with_the_leadership_that_is_handed_over():
    """The target passes the live-leader check, so nothing protects this leader any more, even if it leads on."""
    cluster, leader, (_, target) = ready(read_mode="lease")
    cluster.run(60)
    assert cluster.read(leader).done
    core = cluster.core(leader)
    cluster.transfer(leader, target)
    assert core.leadership.lease_given_up
    assert not cluster.read(leader).done


def test_a_node_that_restarts_keeps_its_vote_back_while_a_lease_may_rely_on_it():
    cluster, leader, (voter, candidate) = ready(read_mode="lease")
    cluster.restart(voter)
    assert cluster.core(voter).heard_from_leader()
    cluster.cut = {(leader, voter), (leader, candidate)}
    cluster.elect(candidate)
    cluster.run(50)
    assert cluster.core(candidate).state is not State.LEADER


def test_a_sole_voter_that_restarts_keeps_its_vote_back_too():
    """A leader that leaves leads until the change is committed, and its lease rests on the one who stays."""
    cluster, leader, (heir,) = ready(2, read_mode="lease")
    cluster.change(leader, heir)
    cluster.run_until(lambda: cluster.core(leader).membership.members == (heir,))
    cluster.cut = {(heir, leader)}
    cluster.run_until(lambda: cluster.nodes[heir].disk.entries[-1].index == cluster.core(leader).log.last_index)
    cluster.nodes[heir].crash()
    cluster.run(100)
    cluster.nodes[heir].start()
    cluster.run_until(lambda: cluster.core(heir).leadership is not None)
    written = cluster.write(heir, "new")
    cluster.run_until(lambda: written.done)
    assert not isinstance(cluster.read(leader).value, int)


def test_a_new_voter_whose_disk_does_not_know_it_keeps_its_vote_back_when_it_restarts():
    cluster, leader, (other, _) = ready(3, spare=1, seed=1, read_mode="lease")
    added = cluster.add_non_voter(leader, "n4")
    cluster.run_until(lambda: added.done)
    cluster.run(60)
    new = cluster.nodes["n4"]
    new.stall = 400 * MS  # it is still writing the configuration that makes it a voter
    changed = cluster.change(leader, leader, other, "n4")
    cluster.run_until(lambda: changed.done)
    cluster.cut = {(leader, other), (other, leader)}  # only by n4's answers the leader has a lease
    cluster.run_until(lambda: cluster.core(other).state is State.PRE_CANDIDATE)
    new.stall = new.writing = None
    cluster.restart("n4")
    assert cluster.core("n4").state is State.NON_VOTER
    cluster.cut |= {(leader, "n4"), ("n4", leader)}
    cluster.run_until(lambda: cluster.core(other).leadership is not None)
    written = cluster.write(other, "new")
    cluster.run_until(lambda: written.done)
    assert not isinstance(cluster.read(leader).value, int)


def test_a_late_answer_to_an_old_question_for_votes_does_not_end_a_lease():
    """A follower asked for promises once, and follows its leader again since: whoever stands meanwhile gets no vote."""
    cluster, leader, (follower, candidate) = ready(read_mode="lease")
    core = cluster.core(follower)
    asked = VoteRequest(core.term + 1, follower, core.log.last_index, core.log.last_term)
    for method in ("pre_vote", "vote"):
        late = Answered(Send(candidate, method, asked, 0, 0), VoteResponse(core.term + 1, vote_granted=False))
        cluster.nodes[follower].take(late)
    assert core.heard_from_leader()
    assert core.term == cluster.core(leader).term
    cluster.isolate(follower)
    cluster.run(200)
    cluster.nodes[follower].take(late)
    assert core.term == asked.term, "it hears from nobody any more, and takes the term"


# -- triggers and limits ----------------------------------------------------------------------------------------------


def test_trigger_heartbeat():
    cluster, leader, others = ready()
    cluster.run(3)
    cluster.sent.clear()
    cluster.nodes[leader].take(Heartbeat())
    assert {message.to for name, message in cluster.sent if name == leader} == set(others)
    cluster.nodes[others[0]].take(Heartbeat())  # of no use, and no harm


def test_trigger_election_is_refused_by_those_who_hear_from_a_leader():
    cluster, leader, (other, _) = ready()
    cluster.elect(other)
    cluster.run(20)
    assert cluster.core(leader).state is State.LEADER
    assert cluster.core(other).state is not State.LEADER


def test_bytes_in_flight_are_bounded():
    cluster, leader, others = ready(max_inflight_bytes=1000, max_inflight_messages=100, max_payload_entries=1)
    cluster.isolate(others[0])
    progress = cluster.core(leader).leadership.progress[others[1]]
    cluster.delay = (20 * MS, 20 * MS)
    for number in range(50):
        cluster.write(leader, f"{number}" * 100)
        cluster.run(0.5)
        assert progress.inflight_bytes < 1000 + 300, "one more than fits, at most"
    assert len(progress.inflight) > 3
    cluster.delay = (MS, MS)
    cluster.run(1000)
    assert progress.inflight_bytes == 0
    assert progress.match_index == cluster.core(leader).log.last_index


def test_reads_that_wait_are_bounded():
    cluster, leader, others = ready(max_waiting_reads=3)
    cluster.delay = (20 * MS, 20 * MS)
    reads = [cluster.read(leader) for _ in range(6)]
    refused = [read for read in reads if isinstance(read.value, ReadOverloaded)]
    assert refused
    cluster.run(200)
    assert all(isinstance(read.value, int) for read in reads if read not in refused)
    assert isinstance(cluster.read(others[0]).value, ReadForwardToLeader)
