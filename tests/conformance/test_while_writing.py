"""What a leader goes on with while its disk works, and what waits: on the pure core, in virtual time.

A leader counts itself only for what is on its disk (Raft thesis 10.2.1); so nothing that it says depends on a write.
"""

from __future__ import annotations

from typing import Any

import pytest
from raft_harness import MS, Cluster

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Config,
    LeadershipLost,
    LogsSinceLast,
    Normal,
    Overloaded,
    State,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.events import (
    AddNonVoter,
    Answered,
    ChangeMembership,
    ClientRead,
    ClientWrite,
    Compact,
    Elect,
    Event,
    Failed,
    Heartbeat,
    Received,
    RemoveNonVoter,
    Send,
    TransferLeadership,
)
from raftbed.nodes.raft.messages import InstallSnapshotResponse, SnapshotMeta, TimeoutNowResponse

FOR_EVER = 10**9 * MS


def led(size: int = 3, **options: Any) -> tuple[Cluster, str, list[str]]:
    """A cluster whose members follow one leader, whose disk hangs from now on; with that leader and the others."""
    cluster = Cluster(size, **options)
    leader: str = cluster.run_until(cluster.settled)
    cluster.run_until(cluster.together)
    cluster.nodes[leader].stall = FOR_EVER
    return cluster, leader, [name for name in cluster.nodes if name != leader]


# -- what goes on -----------------------------------------------------------------------------------------------------


def test_a_quorum_of_followers_commits_what_the_leaders_own_disk_lacks() -> None:
    cluster, leader, _ = led()
    before = cluster.core(leader).durable_index
    writes = [cluster.write(leader, text) for text in "abc"]
    cluster.run(20)
    assert [write.value for write in writes] == [(before + 1 + place, Normal(text)) for place, text in enumerate("abc")]
    assert cluster.core(leader).durable_index == before
    assert len(cluster.nodes[leader].disk.entries) == before


def test_a_leader_does_not_count_itself_for_what_its_disk_lacks() -> None:
    cluster, leader, (_, lost) = led()
    cluster.isolate(lost)
    write = cluster.write(leader, "it and one follower are a quorum, when it is on disk")
    cluster.run(20)
    assert not write.done
    cluster.nodes[leader].written(cluster.nodes[leader].boot, ())
    assert write.done


def test_what_was_committed_without_the_leaders_disk_outlives_the_leader() -> None:
    cluster, leader, others = led()
    write = cluster.write(leader, "acknowledged")
    cluster.run_until(lambda: write.done)
    cluster.nodes[leader].crash()
    cluster.nodes[leader].stall = None
    successor = cluster.run_until(lambda: (now := cluster.leader()) in others and now)
    cluster.nodes[leader].start()
    more = cluster.write(successor, "more")
    cluster.run_until(lambda: more.done)
    cluster.run_until(cluster.together)
    assert Normal("acknowledged") in cluster.nodes[leader].applied


def test_reads_are_served_and_see_what_was_acknowledged() -> None:
    cluster, leader, _ = led()
    write = cluster.write(leader, "new")
    cluster.run_until(lambda: write.done)
    read = cluster.read(leader)
    cluster.run_until(lambda: read.done, 20)
    assert read.value == read.wanted >= write.value[0]
    assert cluster.nodes[leader].writing is not None


def test_what_came_meanwhile_is_the_next_write() -> None:
    cluster, leader, _ = led()
    for number in range(5):
        cluster.write(leader, number)
    node = cluster.nodes[leader]
    assert node.writing is not None and len(node.writing.entries) == 1
    node.stall = None
    node.written(node.boot, ())
    assert node.writing is not None and len(node.writing.entries) == 4


def test_one_message_with_entries_is_on_its_way_to_a_peer_and_the_next_carries_all_that_came_since() -> None:
    cluster, leader, others = led()
    cluster.sent.clear()
    writes = [cluster.write(leader, number) for number in range(20)]
    to_one = [m.request for _, m in cluster.sent if m.to == others[0] and m.method == "append_entries"]
    assert [len(request.entries) for request in to_one] == [1]
    cluster.run_until(lambda: all(write.done for write in writes))
    to_one = [m.request for _, m in cluster.sent if m.to == others[0] and m.method == "append_entries"]
    assert [len(request.entries) for request in to_one if request.entries] == [1, 19]


def test_before_the_disk_is_done_each_peer_has_one_message_and_after_it_many_may_be_on_their_way() -> None:
    cluster, leader, (other, _) = led(max_payload_entries=1)
    progress = cluster.core(leader).leadership.progress[other]
    for number in range(4):
        cluster.write(leader, number)
    assert len(progress.inflight) == 1
    cluster.nodes[leader].stall = None
    cluster.nodes[leader].written(cluster.nodes[leader].boot, ())
    assert len(progress.inflight) == 4


def test_bytes_on_their_way_to_a_peer_are_limited() -> None:
    cluster, leader, (other, _) = led(max_payload_entries=1, max_inflight_bytes=600)
    progress = cluster.core(leader).leadership.progress[other]
    for _ in range(4):
        cluster.write(leader, "x" * 400)
    cluster.nodes[leader].stall = None
    cluster.nodes[leader].written(cluster.nodes[leader].boot, ())
    assert len(progress.inflight) == 2  # with the second it is too much


def test_a_piece_of_a_snapshot_follows_the_other() -> None:
    cluster, leader, (behind, _) = led(snapshot_max_chunk_size=10, trailing_logs=0, snapshot_policy=None)
    node = cluster.nodes[leader]
    node.stall = None
    cluster.nodes[behind].crash()
    writes = [cluster.write(leader, f"a long entry, number {number}") for number in range(10)]
    cluster.run_until(lambda: all(write.done for write in writes))
    compacted = cluster.compact(leader)
    cluster.run_until(lambda: compacted.done and node.writing is None)
    node.stall = FOR_EVER
    cluster.write(leader, "the disk works")
    cluster.nodes[behind].start()
    cluster.run_until(lambda: cluster.core(behind).snapshot is not None, 1000)
    assert node.writing is not None
    cluster.run_until(lambda: Normal("the disk works") in cluster.nodes[behind].applied, 1000)


# -- snapshots of what the own disk lacks -----------------------------------------------------------------------------


def snapshot_beyond_the_log(**options: Any) -> tuple[Cluster, str]:
    """A leader whose snapshot is on disk, and includes entries that its log on disk lacks."""
    cluster, leader, _ = led(snapshot_policy=LogsSinceLast(5), trailing_logs=0, **options)
    writes = [cluster.write(leader, number) for number in range(12)]
    cluster.run_until(lambda: all(write.done for write in writes))
    disk = cluster.nodes[leader].disk
    cluster.run_until(lambda: disk.snapshot is not None)
    assert disk.snapshot.index > disk.base.index + len(disk.entries)
    return cluster, leader


def test_a_leader_that_dies_with_a_snapshot_beyond_its_log_begins_after_it() -> None:
    cluster, leader = snapshot_beyond_the_log()
    node = cluster.nodes[leader]
    snapshot = node.disk.snapshot
    node.crash()
    node.stall = None
    node.start()
    assert (cluster.core(leader).log.base.index, cluster.core(leader).log.last_index) == (snapshot.index,) * 2
    cluster.run_until(cluster.settled)
    cluster.run_until(cluster.together)
    assert [payload.data for payload in node.applied if isinstance(payload, Normal)] == list(range(12))


def test_a_log_is_compacted_beyond_its_end_on_disk() -> None:
    cluster, leader = snapshot_beyond_the_log()
    node = cluster.nodes[leader]
    cluster.run(5)
    node.written(node.boot, ())  # the write of before the snapshot; the next one takes the snapshot into account
    assert node.writing is not None and node.writing.compact_to is not None
    assert node.writing.compact_to.index > cluster.core(leader).durable_index
    write = cluster.write(leader, "goes on")
    cluster.run_until(lambda: write.done, 20)
    node.stall = None
    node.written(node.boot, ())
    cluster.run_until(lambda: node.writing is None)
    assert node.disk.base == cluster.core(leader).log.base
    assert cluster.core(leader).durable_index == cluster.core(leader).log.last_index
    cluster.restart(leader)
    cluster.run_until(cluster.together)
    assert Normal("goes on") in node.applied


# -- what waits -------------------------------------------------------------------------------------------------------


def answered(cluster: Cluster, leader: str, method: str, response: object) -> Answered:
    core = cluster.core(leader)
    sent = Send("n9", method, AppendEntriesRequest(core.term, leader, 0, 0, (), 0), 0, cluster.now)  # type: ignore[arg-type]
    return Answered(sent, response)  # type: ignore[arg-type]


def others_events(cluster: Cluster, leader: str) -> list[Event]:
    term, ask = cluster.core(leader).term, lambda answer: None
    return [
        Received(ask, "append_entries", AppendEntriesRequest(term + 1, "n2", 0, 0, (), 0)),
        Received(ask, "append_entries", AppendEntriesRequest(term - 1, "n2", 0, 0, (), 0)),
        Received(ask, "vote", VoteRequest(term + 1, "n2", 99, term)),
        Received(ask, "pre_vote", VoteRequest(term + 1, "n2", 99, term)),
        answered(cluster, leader, "append_entries", AppendEntriesResponse(term + 1, success=False)),
        answered(cluster, leader, "vote", VoteResponse(term, vote_granted=True)),
        AddNonVoter(ask, "n9"),
        RemoveNonVoter(ask, "n9"),
        ChangeMembership(ask, ("n1",)),
        TransferLeadership(ask),
        Compact(ask),
        Elect(),
        Heartbeat(),
    ]


def test_only_what_clients_ask_and_peers_confirm_is_taken() -> None:
    cluster, leader, _ = led()
    core, ask = cluster.core(leader), lambda answer: None
    cluster.write(leader, "the disk works")
    for event in others_events(cluster, leader):
        assert not core.takes_while_writing(event, cluster.now), event
    acknowledged = answered(cluster, leader, "append_entries", AppendEntriesResponse(core.term, success=True))
    for event in (ClientWrite(ask, "x", "x"), ClientRead(ask), acknowledged, Failed(acknowledged.sent)):
        assert core.takes_while_writing(event, cluster.now), event
        assert not core.takes_while_writing(event, core.silent_from), "the disk hangs"


def test_pieces_of_a_snapshot_are_acknowledged_but_no_votes() -> None:
    cluster, leader, _ = led()
    core = cluster.core(leader)
    cluster.write(leader, "the disk works")
    for response, taken in [
        (AppendEntriesResponse(core.term - 1, success=False), True),
        (InstallSnapshotResponse(core.term), True),
        (InstallSnapshotResponse(core.term + 1), False),
        (VoteResponse(core.term, vote_granted=True), False),
        (TimeoutNowResponse(core.term), False),
    ]:
        assert core.takes_while_writing(answered(cluster, leader, "append_entries", response), cluster.now) is taken


def test_an_idle_disk_is_no_reason_to_go_on_beside_it() -> None:
    cluster, leader, _ = led()
    assert not cluster.core(leader).goes_on_while_writing
    assert not cluster.core(leader).takes_while_writing(ClientRead(None), cluster.now)


def test_what_leaves_before_the_disk_is_done() -> None:
    """A leader's effects; those of a candidate, and of a follower, wait."""
    cluster, leader, (other, _) = led()
    leading, following = cluster.core(leader), cluster.core(other)
    leading.step(ClientWrite(None, "x", "x"), cluster.now)
    ready = leading.ready()
    assert ready.persist is not None and ready.independent
    assert leading.ready_while_writing() is None
    following.step(Elect(), cluster.now)
    ready = following.ready()
    assert ready.persist is not None and not ready.independent
    assert ready.effects


def test_what_depends_on_no_write_leaves_at_once() -> None:
    cluster, _, (other, _) = led()
    core = cluster.core(other)
    core.step(ClientRead(lambda answer: None), cluster.now)
    ready = core.ready()
    assert ready.persist is None and ready.independent


def test_a_leader_whose_vote_for_itself_is_not_on_disk_does_nothing_before_it_is() -> None:
    """No driver lets it come to that: who asks for votes has made its own durable."""
    cluster, _, (other, third) = led()
    core = cluster.core(other)
    core.step(Elect(), cluster.now)
    asked = VoteRequest(core.term, other, core.log.last_index, core.log.last_term)
    core.step(Answered(Send(third, "vote", asked, 0, cluster.now), VoteResponse(core.term, True)), cluster.now)
    assert core.state is State.LEADER
    ready = core.ready()
    assert ready.persist.hard_state is not None and not ready.independent
    assert not core.goes_on_while_writing


@pytest.mark.parametrize("what", ["truncated", "installed"])
def test_only_appending_is_independent(what: str) -> None:
    """A leader does nothing else to its log; if it did, everything would wait."""
    cluster, leader, _ = led()
    core = cluster.core(leader)
    core.append_as_leader(Normal("x"))
    if what == "truncated":
        core.truncate_log(core.log.last_index)
    else:
        core._install = SnapshotMeta(1, 1, "", core.membership)
    assert not core.ready().independent


def test_a_follower_takes_nothing() -> None:
    cluster, leader, (follower, _) = led()
    cluster.nodes[follower].stall = FOR_EVER
    cluster.write(leader, "x")
    cluster.run(10)
    assert cluster.nodes[follower].writing is not None
    assert not cluster.core(follower).goes_on_while_writing


def test_a_candidate_takes_nothing_while_its_vote_is_written() -> None:
    cluster, leader, others = led()
    cluster.nodes[leader].crash()
    for name in others:
        cluster.nodes[name].stall = 5 * MS
    stands = cluster.run_until(lambda: [name for name in others if cluster.core(name).state is State.CANDIDATE])
    assert cluster.nodes[stands[0]].writing is not None
    assert not cluster.core(stands[0]).goes_on_while_writing


def test_a_leader_is_deposed_only_when_its_disk_is_done() -> None:
    cluster, leader, others = led()
    cluster.isolate(leader)
    write = cluster.write(leader, "nobody hears of it")
    successor = cluster.run_until(lambda: (now := cluster.leader()) in others and now)
    cluster.heal()
    cluster.run(300)
    assert cluster.core(leader).state is State.LEADER  # as far as it knows
    assert not write.done
    cluster.nodes[leader].stall = None
    cluster.nodes[leader].written(cluster.nodes[leader].boot, ())
    cluster.run_until(lambda: write.done)
    assert cluster.core(leader).leader_id == successor
    assert isinstance(write.value, LeadershipLost)  # fate unknown


def test_a_disk_that_hangs_ends_it_as_it_ends_the_heartbeats() -> None:
    cluster, leader, _ = led(disk_stall_timeouts=1, heartbeat_interval=20)
    begun = cluster.now
    cluster.write(leader, "the disk works")
    cluster.run_until(lambda: cluster.now >= begun + cluster.config.election_timeout_max * MS)
    late = cluster.write(leader, "too late")
    cluster.run(100)
    assert not late.done


def test_what_the_own_disk_lacks_counts_against_the_limit_of_uncommitted_entries() -> None:
    cluster, leader, _ = led(max_uncommitted_entries=10)
    writes = [cluster.write(leader, number) for number in range(10)]
    cluster.run_until(lambda: all(write.done for write in writes))
    refused = cluster.write(leader, "one more")
    assert isinstance(refused.value, Overloaded)
    node = cluster.nodes[leader]
    node.stall = None
    node.written(node.boot, ())
    cluster.run_until(lambda: node.writing is None)
    write = cluster.write(leader, "now")
    cluster.run_until(lambda: write.done)
    assert isinstance(write.value, tuple)


def test_what_the_own_disk_lacks_counts_in_bytes_too() -> None:
    cluster, leader, _ = led(max_uncommitted_bytes=1000)
    writes = [cluster.write(leader, "x" * 400) for _ in range(3)]
    cluster.run_until(lambda: all(write.done for write in writes))
    assert all(isinstance(write.value, tuple) for write in writes)
    assert isinstance(cluster.write(leader, "y").value, Overloaded)


def test_what_is_not_committed_counts_too() -> None:
    cluster, leader, others = led(max_uncommitted_entries=10)
    cluster.nodes[leader].stall = 0
    for name in others:
        cluster.nodes[name].crash()
    for number in range(10):
        cluster.write(leader, number)
        cluster.run(1)
    assert cluster.core(leader).durable_index == cluster.core(leader).log.last_index
    assert isinstance(cluster.write(leader, "one more").value, Overloaded)


def test_no_stall_allowed_means_that_everything_waits() -> None:
    cluster, leader, _ = led(disk_stall_timeouts=0)
    cluster.write(leader, "the disk works")
    assert not cluster.core(leader).takes_while_writing(ClientRead(None), cluster.now)
    assert Config("test").disk_stall_timeouts > 0
