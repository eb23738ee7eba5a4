"""How a leader sends its snapshot: raft.md sections 1, 2 and 4, snapshots. In virtual time, on the pure core."""

from __future__ import annotations

from typing import Any

import pytest
from raft_harness import Cluster

from raftbed.nodes.raft import (
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    LogsSinceLast,
    MembershipConfig,
    Rate,
)
from raftbed.nodes.raft.events import Answered
from raftbed.nodes.raft.messages import MOST

FOUR = MembershipConfig(("n1", "n2", "n3", "n4"))


def behind(**options: Any) -> tuple[Cluster, str, str]:
    """A cluster whose leader has compacted its log, and a follower that was cut off and lacks entries of before."""
    cluster = Cluster(3, snapshot_policy=LogsSinceLast(20), trailing_logs=5, **options)
    leader = cluster.run_until(cluster.settled)
    straggler = next(name for name in cluster.nodes if name != leader)
    cluster.isolate(straggler)
    for number in range(50):
        cluster.write(leader, number)
        cluster.run(3)
    assert cluster.core(leader).log.base.index > cluster.core(straggler).log.last_index
    cluster.sent.clear()
    return cluster, leader, straggler


def pieces(cluster: Cluster, to: str) -> list[InstallSnapshotRequest]:
    requests = [message.request for _, message in cluster.sent if message.to == to]
    return [request for request in requests if isinstance(request, InstallSnapshotRequest)]


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_snapshot_chunks_at_most_the_maximum(size):
    cluster, leader, straggler = behind(snapshot_max_chunk_size=size)
    cluster.heal()
    cluster.run_until(cluster.together, 60_000)
    sent = pieces(cluster, straggler)
    assert max(len(piece.data) for piece in sent) <= size
    assert len(sent) >= sent[0].snapshot.size / size
    assert cluster.nodes[straggler].applied == cluster.nodes[leader].applied


def test_snapshot_arrives_though_messages_are_lost_and_doubled():
    cluster, leader, straggler = behind(snapshot_max_chunk_size=20)
    cluster.heal()
    cluster.loss, cluster.duplication = 0.2, 0.3
    cluster.run_until(lambda: len(cluster.nodes[straggler].applied) >= 50, 60_000)
    assert cluster.nodes[straggler].applied[:50] == cluster.nodes[leader].applied[:50]
    assert len(pieces(cluster, straggler)) < 2 * pieces(cluster, straggler)[0].snapshot.size, "not ever from the start"


def test_snapshot_receiver_that_crashes_begins_again():
    cluster, leader, straggler = behind(snapshot_max_chunk_size=20)
    cluster.heal()
    cluster.run_until(lambda: len(pieces(cluster, straggler)) > 3)
    cluster.restart(straggler)
    cluster.run_until(cluster.together, 60_000)
    assert cluster.nodes[straggler].applied == cluster.nodes[leader].applied


def test_snapshot_for_a_peer_that_is_only_far_behind():
    """Past the lag threshold the snapshot is the shorter way, though the log has everything."""
    cluster = Cluster(2, snapshot_policy=LogsSinceLast(20), trailing_logs=10_000, replication_lag_threshold=30, spare=1)
    leader = cluster.run_until(cluster.settled)
    for number in range(100):
        cluster.write(leader, number)
        cluster.run(3)
    added = cluster.add_non_voter(leader, "n3")
    cluster.run_until(lambda: added.done)
    assert cluster.core(leader).log.base.index == 0
    assert pieces(cluster, "n3")


def test_stream_states():
    """Lagging, at line rate, lagging again when it does not answer, and sent a snapshot past the end of the log."""
    cluster = Cluster(3, snapshot_policy=LogsSinceLast(20), trailing_logs=5, max_payload_entries=4)
    leader = cluster.run_until(cluster.settled)
    peer = next(name for name in cluster.nodes if name != leader)
    core = cluster.core(leader)

    def rate() -> Rate:
        return core.leadership.progress[peer].rate(core.log.last_index, core.config.max_payload_entries)

    seen = [Rate.LAGGING]  # at first nothing is known

    def note() -> bool:
        if rate() is not seen[-1]:
            seen.append(rate())
        return False

    def watch(milliseconds: int) -> None:
        for _ in range(milliseconds):
            cluster.run(1)
            note()

    watch(100)
    cluster.isolate(peer)
    for number in range(50):
        cluster.write(leader, number)
        watch(10)
    cluster.heal()
    watch(500)
    assert seen[:3] == [Rate.LAGGING, Rate.LINE_RATE, Rate.LAGGING]
    assert seen[seen.index(Rate.SNAPSHOTTING) :] in (
        [Rate.SNAPSHOTTING, Rate.LINE_RATE],
        [Rate.SNAPSHOTTING, Rate.LAGGING, Rate.LINE_RATE],  # while it is sent what the snapshot does not include
    )


def test_snapshot_gives_a_slow_peer_time():
    """While a peer is being sent a snapshot no new one is taken: it would have to begin again, and again."""
    cluster, leader, straggler = behind(snapshot_max_chunk_size=5)
    cluster.heal()
    cluster.run_until(lambda: len(pieces(cluster, straggler)) > 3)
    number = 0
    while cluster.core(straggler).last_applied < 40:
        number += 1
        cluster.write(leader, number)
        cluster.run(3)
        assert number < 2000
    assert len({piece.snapshot.id for piece in pieces(cluster, straggler)}) == 1


def test_snapshot_transfer_that_never_ends_does_not_let_the_log_grow_for_ever():
    cluster, leader, straggler = behind()
    core = cluster.core(leader)
    cluster.heal()
    cluster.cut = {(straggler, leader)}
    core.leadership.progress[straggler].unreachable = False  # it answers everything but the pieces
    core.leadership.progress[straggler].begin_snapshot(core.snapshot)
    assert not core.may_take_snapshot()
    core.last_applied = core.snapshot.index + 10 * 20
    assert core.may_take_snapshot()


def test_compaction_and_joiner():
    """A node joins a cluster whose log no longer has its beginning."""
    cluster = Cluster(3, snapshot_policy=LogsSinceLast(20), trailing_logs=5, spare=1)
    leader = cluster.run_until(cluster.settled)
    for number in range(100):
        cluster.write(leader, number)
        cluster.run(3)
    changed = cluster.change(leader, "n1", "n2", "n3", "n4")
    cluster.run_until(lambda: changed.done)
    assert changed.value is None
    cluster.run_until(cluster.together)
    assert cluster.core("n4").log.base.index > 0
    assert cluster.nodes["n4"].applied == cluster.nodes[leader].applied
    assert cluster.core("n4").membership == FOUR


def test_snapshot_beats_say_nothing_of_a_log_that_was_compacted():
    """A heartbeat cannot name an entry that the leader has forgotten: it names none, and proves none."""
    cluster, leader, straggler = behind()
    core = cluster.core(leader)
    assert core.leadership.progress[straggler].match_index < core.log.base.index
    cluster.heal()
    cluster.run(5)
    assert cluster.core(straggler).commit_index <= cluster.core(straggler).log.last_index


@pytest.mark.parametrize("offset", [-1, -MOST, MOST])
def test_a_piece_of_a_snapshot_that_cannot_be_is_not_what_is_sent_next(offset: int) -> None:
    cluster, leader, straggler = behind(snapshot_max_chunk_size=20)
    cluster.heal()
    core = cluster.core(leader)
    sending = cluster.run_until(
        lambda: core.leadership and core.leadership.progress[straggler].sending, 60_000
    )  # the first piece
    cluster.nodes[leader].take(Answered(sending, InstallSnapshotResponse(core.term, offset)))
    offsets = [m.request.offset for _, m in cluster.sent if m.to == straggler and m.method == "install_snapshot"]
    assert all(0 <= asked <= sending.request.snapshot.size for asked in offsets)
    cluster.run_until(cluster.together, 60_000)
