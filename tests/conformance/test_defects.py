"""Raft.md section 4: no defect of async-raft 0.6.1 can come back without a test failing.

Each row puts the defect in, from outside, and runs a test of this suite on it. The test passes on the code as it is,
and fails on the code with the defect: both are checked here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import test_elections
import test_keep_alive
import test_membership
import test_reads
import test_replication
import test_snapshots

from raftbed.nodes.raft import AppendEntriesRequest, AppendEntriesResponse, VoteRequest
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.messages import InstallSnapshotRequest, InstallSnapshotResponse, SnapshotMeta
from raftbed.nodes.raft.progress import Progress
from raftbed.nodes.raft.quorum import majority
from raftbed.nodes.raft.state import Incoming, Leadership


@dataclass(frozen=True)
class Defect:
    """What async-raft does wrong: a method, what it is replaced by, and the test that must notice."""

    owner: Any
    method: str
    wrong: Callable[..., Any]
    test: Callable[[], None]


# -- client_read counts one confirmation too few: a 3-node leader confirms itself -------------------------------------


def one_confirmation_too_few(self: Core, leadership: Leadership) -> bool:
    confirmed = [node for node in self.membership.voters() if self.acknowledged_round(node) >= leadership.round]
    return len(confirmed) >= majority(len(self.membership.voters())) - 1


# -- promoted non-voters are never counted, so a grown one-node leader commits alone ----------------------------------


def count_only_who_was_there_at_the_election(self: Core) -> None:
    founders = self.log.membership_at(1) or self.membership
    held = sorted((self.acknowledged_index(node) for node in founders.members), reverse=True)
    index = held[majority(len(held)) - 1]
    if index > self.commit_index and self.may_commit_by_count(index):
        self.advance_commit(index)


# -- match_index starts at the leader's own last index: false commits -------------------------------------------------


def match_starts_at_the_leaders_last(self: Core, *, next_index: int) -> None:
    assert self.leadership is not None
    for node in self.membership.nodes():
        if node != self.id and node not in self.leadership.progress:
            stream = Progress(next_index=next_index, last_contact=self.now, match_index=next_index + 2)
            self.leadership.progress[node] = stream


# -- vote freshness is compared as `term >= and index >=` instead of lexicographically --------------------------------


def both_at_least(self: Core, request: VoteRequest) -> bool:
    return request.last_log_term >= self.log.last_term and request.last_log_index >= self.log.last_index


# -- heartbeats succeed unverified; the commit index is taken over without min(leader_commit, last verified) ----------


_append_requested = Core.append_requested


def heartbeats_succeed_unverified(self: Core, token: Any, request: AppendEntriesRequest) -> None:
    if request.entries or request.term < self.term:
        _append_requested(self, token, request)
        return
    self.follow(request.term, request.leader_id)
    self.advance_commit_as_follower(request.leader_commit, min(request.prev_log_index, self.log.last_index))
    self.respond(token, AppendEntriesResponse(self.term, success=True, verified_index=request.prev_log_index))


def commit_what_the_leader_says(self: Core, leader_commit: int, verified: int) -> None:
    self.advance_commit(min(leader_commit, self.log.last_index))


def take_heard_heartbeats_unverified(self: Core) -> None:
    request, self.heard = self.heard, None
    if request is not None:
        self.advance_commit(min(request.leader_commit, self.log.last_index))


# -- append truncates matching suffixes; prev_log_index == 0 skips the check ------------------------------------------


def truncate_whatever_is_there(self: Core, request: AppendEntriesRequest) -> None:
    if request.entries and request.entries[0].index <= self.log.last_index:
        self.truncate_log(request.entries[0].index)
    for entry in request.entries:
        self.append_entry(entry)


_store_entries = Core.store_entries


def compare_nothing_at_the_beginning(self: Core, request: AppendEntriesRequest) -> None:
    if request.prev_log_index:
        _store_entries(self, request)
        return
    for entry in request.entries:
        if entry.index > self.log.last_index:
            self.append_entry(entry)


# -- snapshot install regresses last_log_index and takes stale snapshots; chunks carry no snapshot identity -----------


_install = Core.install


def forget_the_suffix(self: Core, snapshot: SnapshotMeta) -> None:
    _install(self, snapshot)
    if self.log.last_index > snapshot.index:
        self.log.truncate(snapshot.index + 1)


def take_stale_ones_too(self: Core, token: Any, request: InstallSnapshotRequest) -> None:
    commit, self.commit_index = self.commit_index, 0
    _install_requested(self, token, request)
    self.commit_index = commit


_install_requested = Core.install_requested


def no_identity(self: Core, token: Any, request: InstallSnapshotRequest) -> None:
    if self.incoming is not None and not self.incoming.busy:
        self.incoming = Incoming(request.snapshot.id, self.incoming.next_offset)
    _install_requested(self, token, request)


def any_piece_will_do(self: Core, token: Any, request: InstallSnapshotRequest) -> None:
    self.respond(token, InstallSnapshotResponse(self.term, request.offset + len(request.data)))


DEFECTS = {
    "client_read counts one confirmation too few": Defect(
        Core, "round_confirmed", one_confirmation_too_few, lambda: test_reads.test_client_read_isolated_leader_fails(3)
    ),
    "promoted non-voters are never counted": Defect(
        Core,
        "advance_commit_as_leader",
        count_only_who_was_there_at_the_election,
        test_membership.test_promoted_non_voters_are_counted,
    ),
    "match_index starts at the leader's own last index": Defect(
        Core,
        "streams_follow_membership",
        match_starts_at_the_leaders_last,
        test_replication.test_match_index_starts_at_nothing,
    ),
    "vote freshness is not lexicographic": Defect(
        Core,
        "log_is_fresh",
        both_at_least,
        lambda: test_elections.test_votes_go_to_logs_that_are_as_fresh(4, 1, True),
    ),
    "heartbeats succeed unverified": Defect(
        Core,
        "append_requested",
        heartbeats_succeed_unverified,
        test_replication.test_a_heartbeat_is_verified_like_any_other_append,
    ),
    "the commit index is taken over as it comes": Defect(
        Core,
        "advance_commit_as_follower",
        commit_what_the_leader_says,
        test_replication.test_commit_index_never_exceeds_what_is_verified,
    ),
    "heartbeats that came while the disk worked are taken unverified": Defect(
        Core,
        "learn_from_heard",
        take_heard_heartbeats_unverified,
        lambda: test_keep_alive.test_what_a_heartbeat_calls_committed_is_verified_when_the_disk_is_done((2, 2), 2),
    ),
    "append truncates matching suffixes": Defect(
        Core,
        "store_entries",
        truncate_whatever_is_there,
        test_replication.test_entries_that_are_there_already_are_kept,
    ),
    "prev_log_index == 0 skips the check": Defect(
        Core,
        "store_entries",
        compare_nothing_at_the_beginning,
        test_replication.test_the_beginning_of_the_log_is_checked_too,
    ),
    "snapshot install regresses last_log_index": Defect(
        Core, "install", forget_the_suffix, test_snapshots.test_snapshot_never_regresses_last_log_index
    ),
    "stale snapshots are taken": Defect(
        Core, "install_requested", take_stale_ones_too, test_snapshots.test_snapshot_stale_is_refused
    ),
    "chunks carry no snapshot identity": Defect(
        Core, "install_requested", no_identity, test_snapshots.test_snapshot_pieces_of_another_are_not_mixed_in
    ),
    "chunks are acknowledged whatever they are": Defect(
        Core, "install_requested", any_piece_will_do, test_snapshots.test_snapshot_resumes_after_a_lost_chunk
    ),
}


@pytest.mark.parametrize("defect", DEFECTS.values(), ids=DEFECTS.keys())
def test_a_defect_that_comes_back_is_noticed(defect: Defect, monkeypatch: pytest.MonkeyPatch) -> None:
    defect.test()
    monkeypatch.setattr(defect.owner, defect.method, defect.wrong)
    with pytest.raises((AssertionError, KeyError, ValueError, IndexError)):
        defect.test()
