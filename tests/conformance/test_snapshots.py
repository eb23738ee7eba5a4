"""How the log stays short: raft.md sections 1, 2 and 4, snapshots. In virtual time, on the pure core."""

from __future__ import annotations

from random import Random
from typing import Any

from raft_harness import MS, Cluster

from raftbed.nodes.raft import (
    Config,
    ConfigChange,
    Entry,
    HardState,
    LogsSinceLast,
    MembershipConfig,
    Normal,
    SnapshotError,
    SnapshotMeta,
    State,
)
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import (
    AbortSnapshot,
    Answered,
    ChunkStored,
    Compact,
    Durable,
    Elect,
    Ready,
    Received,
    Respond,
    Restore,
    Send,
    SnapshotTaken,
    StoreChunk,
    TakeSnapshot,
)
from raftbed.nodes.raft.log import Log
from raftbed.nodes.raft.messages import (
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    LogBase,
    VoteRequest,
    VoteResponse,
)

THREE = MembershipConfig(("n1", "n2", "n3"))
FOUR = MembershipConfig(("n1", "n2", "n3", "n4"))


def log(*terms: int) -> tuple[Entry, ...]:
    """A log with entries of these terms; the first is the membership."""
    rest = (Entry(index, term, Normal(index)) for index, term in enumerate(terms[1:], 2))
    return (Entry(1, terms[0], ConfigChange(THREE)), *rest) if terms else ()


def follower(*terms: int, commit: int = 0, **options: Any) -> Core:
    """n2, whose log has entries of these terms, `commit` of them committed."""
    last = terms[-1] if terms else 0
    core = Core("n2", Config("test", **options), Random(1), hard_state=HardState(last), entries=log(*terms), now=0)
    core.start()
    core.advance_commit(commit)
    core.ready()
    return core


def snapshot(index: int, term: int, membership: MembershipConfig = THREE, size: int = 10) -> SnapshotMeta:
    """A snapshot of a log whose entries are all of `term`."""
    return SnapshotMeta(index, term, Log(log(*[term] * index)).prefix_hash(index), membership, size, checksum=7)


def offer(core: Core, meta: SnapshotMeta, offset: int = 0, size: int | None = None, term: int = 9) -> Ready:
    """n1, leader of `term`, sends a piece of a snapshot."""
    data = b"x" * (meta.size - offset if size is None else size)
    done = offset + len(data) == meta.size
    request = InstallSnapshotRequest(term, "n1", meta, offset, data, done)
    core.step(Received("token", "install_snapshot", request), 0)
    return settle(core)


def settle(core: Core) -> Ready:
    """What the core wants done; its disk does its work at once."""
    ready = core.ready() or Ready()
    if ready.persist is not None:
        core.step(Durable(), 0)
    return ready


def stored(core: Core, ready: Ready, *, sound: bool = True) -> Ready:
    """The piece that `ready` wants stored is; if it was the last, the whole has its checksum, or not."""
    (store,) = [effect for effect in ready.effects if isinstance(effect, StoreChunk)]
    request = store.request
    end = request.offset + len(request.data) if sound else 0
    core.step(ChunkStored(store.token, request, end, complete=request.done and sound), 0)
    return settle(core)


def answer(ready: Ready) -> Any:
    (response,) = [effect.value for effect in ready.effects if isinstance(effect, Respond)]
    return response


def wanted(ready: Ready, kind: type) -> list[Any]:
    return [effect for effect in ready.effects if isinstance(effect, kind)]


# -- taking -----------------------------------------------------------------------------------------------------------


def test_snapshot_is_taken_when_the_policy_says_so():
    core = follower(*[1] * 12, snapshot_policy=LogsSinceLast(5), trailing_logs=2)
    core.advance_commit(4)
    assert not wanted(settle(core), TakeSnapshot)
    core.advance_commit(6)
    (take,) = wanted(settle(core), TakeSnapshot)
    assert take.snapshot == SnapshotMeta(6, 1, core.log.prefix_hash(6), THREE)
    core.advance_commit(12)
    assert not wanted(settle(core), TakeSnapshot), "one at a time"


def test_snapshot_lets_the_log_forget_all_but_trailing_entries():
    core = follower(*[1] * 12, snapshot_policy=LogsSinceLast(5), trailing_logs=2)
    hashes = {index: core.log.prefix_hash(index) for index in range(1, 13)}
    core.advance_commit(6)
    (take,) = wanted(settle(core), TakeSnapshot)
    core.step(SnapshotTaken(take.snapshot), 0)
    persist = settle(core).persist
    assert persist is not None
    assert persist.compact_to == LogBase(4, 1, hashes[4])
    assert (core.log.base.index, core.log.last_index) == (4, 12)
    assert [core.log.prefix_hash(index) for index in range(4, 13)] == [hashes[index] for index in range(4, 13)]
    assert core.membership == THREE, "though the entry that said so is gone"


def test_snapshot_of_the_trailing_entries_only_is_no_reason_to_compact():
    core = follower(*[1] * 12, snapshot_policy=LogsSinceLast(5), trailing_logs=100)
    core.advance_commit(6)
    (take,) = wanted(settle(core), TakeSnapshot)
    core.step(SnapshotTaken(take.snapshot), 0)
    assert settle(core).persist is None
    assert core.log.base.index == 0


def test_snapshot_that_fails_is_tried_again_and_stops_nothing():
    cluster = Cluster(1, snapshot_policy=LogsSinceLast(5))
    cluster.run_until(cluster.settled)
    for number in range(8):
        cluster.write("n1", number)
    cluster.run_until(lambda: cluster.nodes["n1"].snapshotting)
    cluster.nodes["n1"].snapshotting = None  # the disk is full, say
    cluster.run(50)
    assert cluster.core("n1").snapshot is None
    for number in range(8):
        cluster.write("n1", number)
    cluster.run_until(lambda: cluster.core("n1").snapshot)


def test_snapshot_does_not_stop_the_node():
    cluster = Cluster(1, snapshot_policy=LogsSinceLast(5))
    cluster.run_until(cluster.settled)
    for number in range(8):
        cluster.write("n1", number)
    cluster.run_until(lambda: cluster.nodes["n1"].snapshotting)
    cluster.disk_time = (MS // 10, MS // 10)
    during = cluster.write("n1", "during")
    cluster.run_until(lambda: during.done)
    assert cluster.core("n1").snapshot is None, "it is still being written"
    taken = cluster.run_until(lambda: cluster.core("n1").snapshot)
    assert taken.index < during.value[0], "the write is not in it"


def test_snapshot_on_request():
    cluster = Cluster(1, snapshot_policy=None, initialized=False)
    assert isinstance(cluster.compact("n1").value, SnapshotError), "nothing was applied yet"
    cluster.initialize("n1")
    cluster.run_until(cluster.settled)
    cluster.write("n1", "a")
    cluster.run(10)
    first, second = cluster.compact("n1"), cluster.compact("n1")
    cluster.run_until(lambda: first.done and second.done)
    assert first.value == second.value
    assert first.value.index == cluster.core("n1").last_applied
    again = cluster.compact("n1")
    cluster.run_until(lambda: again.done)
    assert again.value == first.value, "nothing was applied since"


def test_snapshot_restart():
    """Snapshot and log together are what the node was; the state machine sees each entry once."""
    cluster = Cluster(3, snapshot_policy=LogsSinceLast(10), trailing_logs=3)
    leader = cluster.run_until(cluster.settled)
    for number in range(37):
        cluster.write(leader, number)
        cluster.run(5)
    before = cluster.nodes[leader].applied
    for name in cluster.nodes:
        cluster.restart(name)
        assert 0 < cluster.core(name).log.base.index < len(before)
        assert cluster.core(name).last_applied >= 30
    leader = cluster.run_until(cluster.settled)
    cluster.run_until(cluster.together)
    assert all(node.applied[: len(before)] == before for node in cluster.nodes.values())


# -- taking in --------------------------------------------------------------------------------------------------------


def test_snapshot_install():
    core, meta = follower(1, 1), snapshot(8, 2, FOUR)
    ready = stored(core, offer(core, meta))
    assert ready.persist is not None
    assert (ready.persist.install, ready.persist.compact_to) == (meta, meta.base())
    assert wanted(ready, Restore) == [Restore(meta)]
    assert answer(ready) == InstallSnapshotResponse(9, meta.size, installed=True)
    assert (core.log.base, core.log.last_index, core.log.last_term) == (meta.base(), 8, 2)
    assert (core.commit_index, core.last_applied, core.membership) == (8, 8, FOUR)


def test_snapshot_is_durable_before_the_state_machine_changes_and_before_it_is_acknowledged():
    core, meta = follower(), snapshot(8, 2)
    (store,) = wanted(offer(core, meta), StoreChunk)
    core.step(ChunkStored(store.token, store.request, meta.size, complete=True), 0)
    ready = core.ready()
    assert ready is not None and ready.persist is not None and ready.persist.install == meta
    assert [type(effect) for effect in ready.effects] == [Restore, Respond]


def test_snapshot_stale_is_refused():
    """async-raft takes it, and goes back to what the state machine once was."""
    core = follower(*[1] * 10, commit=8)
    ready = offer(core, snapshot(8, 1))
    assert answer(ready).installed, "the leader need not send more of it"
    assert not wanted(ready, StoreChunk)
    assert (core.last_applied, core.log.last_index) == (8, 10)


def leads_while_storing(meta: SnapshotMeta) -> tuple[Core, StoreChunk]:
    """A node that is elected while the last piece of a snapshot is being stored; with what is being stored."""
    core = follower(*[1] * 10)
    (store,) = wanted(offer(core, meta, term=1), StoreChunk)
    core.step(Elect(), 0)
    settle(core)
    asked = VoteRequest(2, "n2", 10, 1)
    core.step(Answered(Send("n3", "vote", asked, 0, 0), VoteResponse(2, vote_granted=True)), 0)
    settle(core)
    assert core.state is State.LEADER
    return core, store


def test_snapshot_that_is_complete_when_its_receiver_leads_is_not_installed():
    """All that it includes is committed, so the leader's log has it; to install it would be to step down."""
    meta = snapshot(6, 1)
    core, store = leads_while_storing(meta)
    core.step(ChunkStored(store.token, store.request, meta.size, complete=True), 0)
    ready = settle(core)
    assert core.state is State.LEADER
    assert not wanted(ready, Restore)
    assert core.log.last_index == 11


def test_snapshot_is_not_begun_while_a_piece_of_another_is_stored_though_the_node_led_meanwhile():
    """Else the file of the one would be written over before it is installed, and the other installed in its place."""
    meta, other = snapshot(6, 1), snapshot(12, 3)
    core, store = leads_while_storing(meta)
    ready = offer(core, other, size=5)  # by a leader that deposes it
    assert core.state is State.FOLLOWER
    assert answer(ready) == InstallSnapshotResponse(9, 0)
    core.step(ChunkStored(store.token, store.request, meta.size, complete=True), 0)
    settle(core)
    assert wanted(offer(core, other, size=5), StoreChunk)


def test_snapshot_that_became_stale_while_it_came_in_is_refused():
    core, meta = follower(*[1] * 10), snapshot(6, 1)
    ready = offer(core, meta)
    core.advance_commit(9)
    settle(core)
    ready = stored(core, ready)
    assert answer(ready).installed
    assert ready.persist is None and not wanted(ready, Restore)
    assert core.last_applied == 9


def test_snapshot_of_an_older_leader_is_refused():
    core = follower(1, 5)
    assert answer(offer(core, snapshot(8, 1), term=4)) == InstallSnapshotResponse(5)
    assert core.incoming is None


def test_snapshot_keeps_matching_newer_suffix():
    """async-raft throws it away, and with it what this node has acknowledged."""
    core = follower(*[1] * 10)
    ready = stored(core, offer(core, snapshot(6, 1)))
    assert (core.log.base.index, core.log.last_index) == (6, 10)
    assert ready.persist is not None and ready.persist.truncate_from is None
    assert core.log.slice(7, 11) == log(*[1] * 10)[6:]


def test_snapshot_replaces_a_log_that_contradicts():
    core = follower(*[1] * 10)
    ready = stored(core, offer(core, snapshot(6, 2)))
    assert ready.persist is not None
    assert (ready.persist.truncate_from, ready.persist.compact_to) == (1, snapshot(6, 2).base())
    assert (core.log.base.index, core.log.last_index) == (6, 6)


def test_snapshot_never_regresses_last_log_index():
    core = follower(*[1] * 10, commit=3)
    for index in (2, 6, 9, 4):
        offered = offer(core, snapshot(index, 1))
        if wanted(offered, StoreChunk):
            stored(core, offered)
        assert core.log.last_index == 10


def test_snapshot_install_aborts_own_compaction():
    core = follower(*[1] * 8, commit=5)
    core.step(Compact("operator"), 0)
    (take,) = wanted(settle(core), TakeSnapshot)
    ready = offer(core, snapshot(20, 2), size=4)
    assert wanted(ready, AbortSnapshot)
    assert isinstance(answer(ready), SnapshotError)
    core.step(SnapshotTaken(take.snapshot), 0)  # it could not be stopped any more
    settle(core)
    assert core.snapshot is None and core.log.base.index == 0


def test_snapshot_resumes_after_a_lost_chunk():
    core, meta = follower(), snapshot(8, 2)
    assert answer(stored(core, offer(core, meta, 0, size=4))).next_offset == 4
    assert answer(offer(core, meta, 8, size=2)).next_offset == 4, "the one in between is missing"
    assert answer(offer(core, meta, 0, size=4)).next_offset == 4, "that one is here"
    assert answer(stored(core, offer(core, meta, 4))).installed


def test_snapshot_pieces_of_another_are_not_mixed_in():
    """async-raft's chunks do not say which snapshot they are of."""
    core = follower()
    stored(core, offer(core, snapshot(8, 2), 0, size=4))
    other = snapshot(9, 2)
    assert answer(offer(core, other, 4)) == InstallSnapshotResponse(9, next_offset=0)
    assert answer(stored(core, offer(core, other))).installed
    assert core.log.base.index == 9


def test_snapshot_is_taken_up_by_the_next_leader_where_the_last_one_stopped():
    core, meta = follower(), snapshot(8, 2)
    stored(core, offer(core, meta, 0, size=4, term=9))
    request = InstallSnapshotRequest(10, "n3", meta, 4, b"x" * 6, done=True)
    core.step(Received("token", "install_snapshot", request), 0)
    assert answer(stored(core, settle(core))).installed


def test_snapshot_damaged_on_the_way_is_sent_again():
    core, meta = follower(), snapshot(8, 2)
    assert answer(stored(core, offer(core, meta), sound=False)) == InstallSnapshotResponse(9, next_offset=0)
    assert core.last_applied == 0
    assert answer(stored(core, offer(core, meta))).installed


def test_snapshot_piece_that_comes_twice_while_it_is_stored():
    core, meta = follower(), snapshot(8, 2)
    first = offer(core, meta, 0, size=4)
    assert answer(offer(core, meta, 0, size=4)).next_offset == 0, "busy: no progress"
    assert answer(stored(core, first)).next_offset == 4


def test_snapshot_transfer_keeps_the_leader_alive_for_its_receiver():
    core, meta = follower(1, 1), snapshot(8, 2)
    core.tick(0)
    core.step(Received("t", "install_snapshot", InstallSnapshotRequest(9, "n1", meta, 0, b"x")), 10 * MS)
    assert core.leader_id == "n1"
    assert core.deadline is not None and core.deadline >= 160 * MS
