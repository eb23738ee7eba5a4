"""What is in the log and when it is committed: raft.md sections 1, 2 and 4, replication. On the pure core."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from raft_harness import MS, Cluster

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Config,
    ConfigChange,
    ConflictHint,
    Entry,
    HardState,
    LogContradiction,
    MembershipConfig,
    Normal,
    VoteResponse,
)
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Answered, Durable, Persist, Received, Respond, Send

THREE = MembershipConfig(("n1", "n2", "n3"))


def entry(index: int, term: int) -> Entry:
    return Entry(index, term, ConfigChange(THREE) if index == 1 else Normal(f"{term}.{index}"))


def log(*terms: int) -> tuple[Entry, ...]:
    """A log with entries of these terms."""
    return tuple(entry(index, term) for index, term in enumerate(terms, 1))


def follower(*terms: int, **options: Any) -> Core:
    """A follower whose log has entries of these terms, at time 0."""
    last = terms[-1] if terms else 0
    core = Core("n2", Config("test", **options), Random(1), hard_state=HardState(last), entries=log(*terms), now=0)
    core.start()
    core.ready()
    return core


def append(
    core: Core, term: int, previous: tuple[int, int], *entries: Entry, commit: int = 0
) -> tuple[AppendEntriesResponse, Persist | None]:
    """What n1, leader of `term`, is answered, and what has to be on disk before the answer leaves."""
    core.step(Received("token", "append_entries", AppendEntriesRequest(term, "n1", *previous, entries, commit)), 0)
    ready = core.ready()
    (answer,) = [effect.value for effect in ready.effects if isinstance(effect, Respond)]
    if ready.persist is not None:
        core.step(Durable(), 0)
    return answer, ready.persist


def terms(core: Core) -> list[int]:
    return [core.log.term(index) for index in range(1, core.log.last_index + 1)]


# -- as a follower ----------------------------------------------------------------------------------------------------


def test_entries_are_on_disk_before_they_are_acknowledged():
    core = follower(1)
    answer, persist = append(core, 1, (1, 1), entry(2, 1), entry(3, 1))
    assert answer == AppendEntriesResponse(1, success=True, verified_index=3)
    assert persist == Persist(None, None, (entry(2, 1), entry(3, 1)))


def test_a_leader_of_an_older_term_is_told_the_term():
    core = follower(1, 3)
    assert append(core, 2, (2, 3), entry(3, 2)) == (AppendEntriesResponse(3, success=False), None)
    assert terms(core) == [1, 3]


def test_conflict_hint_missing():
    """The follower has no entry there: look right behind its last one."""
    core = follower(1, 1, 1)
    answer, persist = append(core, 2, (9, 2), entry(10, 2))
    assert answer == AppendEntriesResponse(2, success=False, conflict=ConflictHint(term=0, index=4))
    assert persist == Persist(HardState(2, None), None, ()), "the new term is adopted all the same"


def test_conflict_hint_mismatch():
    """The follower has an entry of another term there: look where that term begins."""
    core = follower(1, 1, 2, 2, 2)
    answer, _ = append(core, 4, (5, 3), entry(6, 4))
    assert answer.conflict == ConflictHint(term=2, index=3)
    assert terms(core) == [1, 1, 2, 2, 2], "nothing is cut off before it is known where the logs agree"


def test_the_beginning_of_the_log_is_checked_too():
    """async-raft skips the check at index 0; an entry that contradicts must go all the same."""
    core = follower(1, 1)
    answer, persist = append(core, 2, (0, 0), entry(1, 2))
    assert answer.verified_index == 1
    assert persist.truncate_from == 1
    assert terms(core) == [2]


def test_entries_that_are_there_already_are_kept():
    """A message that comes late, or twice, must not cut off what came after it."""
    core = follower(1, 1, 1, 1)
    answer, persist = append(core, 1, (1, 1), entry(2, 1), entry(3, 1))
    assert (answer, persist) == (AppendEntriesResponse(1, success=True, verified_index=3), None)
    assert terms(core) == [1, 1, 1, 1]


def test_only_what_contradicts_is_cut_off():
    core = follower(1, 1, 2, 2)
    answer, persist = append(core, 3, (1, 1), entry(2, 1), entry(3, 3))
    assert answer.verified_index == 3
    assert persist == Persist(HardState(3, None), 3, (entry(3, 3),))
    assert terms(core) == [1, 1, 3]


def test_a_heartbeat_is_verified_like_any_other_append():
    core = follower(1, 1, 2)
    assert not append(core, 3, (3, 3), commit=3)[0].success
    assert core.commit_index == 0


def test_commit_index_never_exceeds_what_is_verified():
    """The follower's entries 3 and 4 are of a deposed leader; the heartbeat agrees up to 2 only."""
    core = follower(1, 1, 2, 2)
    answer, _ = append(core, 3, (2, 1), commit=4)
    assert (answer.verified_index, core.commit_index) == (2, 2)


def test_a_committed_entry_is_never_cut_off():
    core = follower(1, 1, 1)
    append(core, 1, (3, 1), commit=3)
    with pytest.raises(LogContradiction, match="contradicts entry 2, but entries up to 3 are committed"):
        append(core, 2, (1, 1), entry(2, 2))


def test_config_on_append():
    """A membership is in force as soon as it is in the log, committed or not."""
    core = follower(1)
    four = MembershipConfig(("n1", "n2", "n3", "n4"))
    append(core, 1, (1, 1), Entry(2, 1, ConfigChange(four)))
    assert (core.membership, core.commit_index) == (four, 0)


def test_config_rollback_on_truncate():
    core = follower(1)
    append(core, 1, (1, 1), Entry(2, 1, ConfigChange(MembershipConfig(("n1", "n2", "n3", "n4")))))
    append(core, 2, (1, 1), entry(2, 2))
    assert core.membership == THREE


# -- as a leader ------------------------------------------------------------------------------------------------------


def appends(cluster: Cluster, sender: str, to: str) -> list[AppendEntriesRequest]:
    """Appends with entries that `sender` has sent."""
    return [
        message.request
        for name, message in cluster.sent
        if name == sender and message.to == to and message.method == "append_entries" and message.request.entries
    ]


def leader_and_others(cluster: Cluster) -> tuple[str, list[str]]:
    """In peace: everyone follows the leader, and knows the first entry to be committed."""
    cluster.delay = (1 * MS, 1 * MS)  # messages do not overtake each other
    leader = cluster.run_until(cluster.settled)
    cluster.run_until(lambda: all(node.applied for node in cluster.nodes.values()))
    return leader, [name for name in cluster.nodes if name != leader]


def test_many_writes_are_one_write_to_disk_and_one_message():
    cluster = Cluster(3)
    leader, others = leader_and_others(cluster)
    cluster.sent.clear()
    first = cluster.write(leader, 0)  # keeps the disk busy while the others come in
    (written,) = cluster.nodes[leader].writing.entries
    writes = [cluster.write(leader, number) for number in range(1, 51)]
    cluster.run_until(lambda: cluster.core(leader).durable_index == written.index)
    assert len(cluster.nodes[leader].writing.entries) == 50
    cluster.run_until(lambda: first.done and all(write.done for write in writes))
    assert [len(request.entries) for request in appends(cluster, leader, others[0])] == [1, 50]


def test_messages_are_limited_and_pipelined():
    cluster = Cluster(3, max_payload_entries=10, max_inflight_messages=3)
    leader, others = leader_and_others(cluster)
    cluster.sent.clear()
    cluster.write(leader, 0)
    writes = [cluster.write(leader, number) for number in range(100)]
    cluster.run_until(
        lambda: cluster.nodes[leader].writing is None and len(cluster.core(leader).log.slice(1, 999)) > 99
    )
    sent = appends(cluster, leader, others[0])
    assert len(sent) == 3, "as many as may be on their way"
    assert max(len(request.entries) for request in sent) == 10
    cluster.run_until(lambda: all(write.done for write in writes))


def test_a_large_entry_goes_alone():
    cluster = Cluster(3, max_payload_bytes=1000)
    leader, others = leader_and_others(cluster)
    cluster.sent.clear()
    cluster.write(leader, 0)
    writes = [cluster.write(leader, data) for data in ("small", "x" * 5000, "small", "small")]
    cluster.run_until(lambda: all(write.done for write in writes))
    assert [len(request.entries) for request in appends(cluster, leader, others[0])] == [1, 1, 1, 2]


def test_match_index_starts_at_nothing():
    """async-raft starts it at the leader's own last index, and commits what nobody else has."""
    cluster = Cluster(3)
    leader, others = leader_and_others(cluster)
    cluster.isolate(leader)
    lost = [cluster.write(leader, number) for number in range(5)]
    cluster.run(100)
    assert {progress.match_index for progress in cluster.core(leader).leadership.progress.values()} <= {0, 1}
    assert cluster.core(leader).commit_index == 1
    assert not any(write.done for write in lost)
    assert others


def test_a_leader_counts_itself_only_for_what_it_has_on_disk():
    cluster = Cluster(2)
    leader, (other,) = leader_and_others(cluster)
    cluster.disk_time = (MS // 10, MS // 5)
    written = cluster.write(leader, "x")
    assert cluster.nodes[leader].writing is not None
    assert cluster.core(leader).acknowledged_index(leader) == 1
    cluster.run_until(lambda: written.done)
    assert all(len(cluster.nodes[name].disk.entries) == 2 for name in (leader, other))


def elected(*terms: int) -> tuple[Core, dict[str, list[Send]]]:
    """n1, whose log has entries of these terms, as leader of the next term; and what it sends to whom."""
    core = Core(
        "n1",
        Config("test", pre_vote=False, max_payload_entries=1),
        Random(1),
        hard_state=HardState(terms[-1]),
        entries=log(*terms),
        now=0,
    )
    core.start()
    core.tick(core.deadline)
    asked = [effect for effect in core.ready().effects if isinstance(effect, Send)]
    core.step(Durable(), core.now)
    core.step(Answered(asked[0], VoteResponse(core.term, vote_granted=True)), core.now)
    return core, sent_by(core)


def sent_by(core: Core) -> dict[str, list[Send]]:
    """What a core wants sent now, to whom; its disk does its work at once."""
    sent: dict[str, list[Send]] = {"n2": [], "n3": []}
    while (ready := core.ready()) is not None:
        for message in ready.early:
            sent[message.to].append(message)
        if ready.persist is not None:
            core.step(Durable(), core.now)
    return sent


def test_entries_of_earlier_terms_are_not_committed_by_counting():
    """Figure 8 of the paper: a quorum holds entry 2 of term 2, and it may be lost until one of term 3 is behind it."""
    core, sent = elected(1, 2)

    def agree(index: int) -> dict[str, list[Send]]:
        answer = AppendEntriesResponse(core.term, success=True, verified_index=index)
        core.step(Answered(sent["n2"][0], answer), core.now)
        return sent_by(core)

    assert core.term == 3
    agree(2)
    assert core.acknowledged_index("n2") == 2, "n1 and n2 have entry 2: two of three"
    assert core.commit_index == 0
    agree(3)
    assert core.commit_index == 3


def test_a_follower_that_lags_is_brought_up():
    cluster = Cluster(3, max_payload_entries=10)
    leader, (away, _) = leader_and_others(cluster)
    cluster.isolate(away)
    writes = [cluster.write(leader, number) for number in range(200)]
    cluster.run_until(lambda: all(write.done for write in writes))
    cluster.heal()
    cluster.run_until(lambda: len(cluster.nodes[away].applied) == 201)


def test_a_diverged_follower_is_brought_in_line():
    cluster = Cluster(3)
    leader, (other, third) = leader_and_others(cluster)
    cluster.isolate(leader)
    for number in range(50):
        cluster.write(leader, f"lost {number}")
    second = cluster.run_until(lambda: cluster.leader() in (other, third) and cluster.leader())
    kept = cluster.write(second, "kept")
    cluster.run_until(lambda: kept.done)
    cluster.heal()
    cluster.run_until(lambda: Normal("kept") in cluster.nodes[leader].applied)
    assert cluster.nodes[leader].disk.entries == cluster.nodes[second].disk.entries


def test_a_peer_that_does_not_answer_gets_heartbeats_only():
    cluster = Cluster(3)
    leader, (away, _) = leader_and_others(cluster)
    cluster.isolate(away)
    cluster.write(leader, "x")
    cluster.run(cluster.config.election_timeout_min + 20)
    cluster.sent.clear()
    for number in range(50):
        cluster.write(leader, number)
        cluster.run(10)
    assert appends(cluster, leader, away) == []
    assert any(message.to == away for name, message in cluster.sent if name == leader)


def test_a_peer_that_was_away_at_the_election_is_not_sent_what_it_has():
    """The new leader knows nothing of that peer's log, and must not begin at its first entry for that."""
    cluster = Cluster(3)
    leader, (away, third) = leader_and_others(cluster)
    writes = [cluster.write(leader, number) for number in range(100)]
    cluster.run_until(lambda: all(len(node.applied) == 101 for node in cluster.nodes.values()))
    assert all(write.done for write in writes)
    cluster.nodes[away].crash()
    cluster.nodes[leader].crash()
    cluster.nodes[leader].start()
    cluster.elect(third)
    cluster.run_until(lambda: cluster.leader() == third)
    cluster.run(1000)
    cluster.sent.clear()
    cluster.nodes[away].start()
    cluster.run_until(lambda: cluster.core(away).log.last_index == cluster.core(third).log.last_index)
    assert [request.entries[0].index for request in appends(cluster, third, away)] == [102]


def test_a_stream_that_looks_for_agreement_has_one_message_on_its_way() -> None:
    cluster = Cluster(3)
    leader = cluster.run_until(cluster.settled)
    cluster.run_until(cluster.together)
    stream = next(iter(cluster.core(leader).leadership.progress.values()))
    stream.probe_from(stream.match_index + 1)
    cluster.write(leader, "x")
    assert stream.probing
    assert len(stream.inflight) == 1
