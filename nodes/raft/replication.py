"""Replication: what a follower takes, what a leader sends, and when an entry is committed (Raft paper 5.3, 5.4)."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from raftbed.nodes.raft.config import MILLISECOND
from raftbed.nodes.raft.events import Apply, Send, Token
from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Blank,
    ConfigChange,
    ConflictHint,
    Entry,
    NodeId,
    Payload,
)
from raftbed.nodes.raft.progress import Progress
from raftbed.nodes.raft.quorum import is_quorum, quorum_value
from raftbed.nodes.raft.state import CoreState, Leadership, State


class Replication(CoreState):
    """The part of the core that keeps logs equal."""

    # -- as a follower --------------------------------------------------------------------------------------------

    def append_requested(self, token: Token, request: AppendEntriesRequest) -> None:
        """A leader sends entries, or a heartbeat."""
        if request.term < self.term or (request.term == self.term and self.state is State.LEADER):
            self.respond(token, AppendEntriesResponse(self.term, success=False))
            return
        self.follow(request.term, request.leader_id)
        if not self.log.matches(request.prev_log_index, request.prev_log_term):
            conflict = self.conflict_hint(request.prev_log_index)
            self.respond(token, AppendEntriesResponse(self.term, success=False, conflict=conflict))
            return
        self.store_entries(request)
        verified = request.prev_log_index + len(request.entries)
        self.advance_commit_as_follower(request.leader_commit, verified)
        self.respond(token, AppendEntriesResponse(self.term, success=True, verified_index=verified))

    def conflict_hint(self, prev_log_index: int) -> ConflictHint:
        """Where the leader should look next: past our end, or at the beginning of the term that contradicts."""
        if prev_log_index > self.log.last_index:
            return ConflictHint(0, self.log.last_index + 1)
        return ConflictHint(self.log.term(prev_log_index), self.log.first_index_of_term(prev_log_index))

    def store_entries(self, request: AppendEntriesRequest) -> None:
        """Append what is missing; only an entry that contradicts is cut off, with all that follow it (5.3)."""
        present = 0
        for entry in request.entries:
            if not self.log.matches(entry.index, entry.term):
                break
            present += 1
        missing = request.entries[present:]
        if not missing:
            return
        before = self.membership
        if missing[0].index <= self.log.last_index:
            self.truncate_log(missing[0].index)
        for entry in missing:
            self.append_entry(entry)
        self.trace_append(missing[0].index)
        if self.membership != before:  # by what was appended, or by what was cut off
            self.become_follower(self.term, self.leader_id)  # a voter now, or no longer

    def advance_commit_as_follower(self, leader_commit: int, verified: int) -> None:
        """Take over the leader's commit index, but never beyond what is known to agree with its log."""
        self.advance_commit(leader_commit if leader_commit < verified else verified)

    # -- as a leader ----------------------------------------------------------------------------------------------

    def become_leader(self) -> None:
        """Won: begin with an entry of the new term, so that earlier ones can be committed through it (5.4.2)."""
        self.leader_id = self.id
        self.change_state(State.LEADER)
        first = self.log.last_index + 1
        if self.incoming is not None and not self.incoming.busy:  # a piece that is being stored is waited for
            self.incoming = None
        self.leadership = Leadership({}, first_own_index=first, next_heartbeat=self.now)
        self.streams_follow_membership(next_index=first)
        payload: Payload = Blank() if self.log.last_index else ConfigChange(self.membership)
        self.append_as_leader(payload)

    def streams_follow_membership(self, *, next_index: int) -> None:
        """A stream for everyone who is to have the log; who is to have it no more is still told so."""
        assert self.leadership is not None
        progress, nodes = self.leadership.progress, self.membership.nodes()
        for node in nodes:
            if node != self.id and node not in progress:
                progress[node] = Progress(next_index=next_index, last_contact=self.now)
        for node, stream in progress.items():
            stream.leaving = node not in nodes

    def append_as_leader(self, payload: Payload) -> int:
        """Append an entry of the current term; returns its index."""
        index = self.log.last_index + 1
        self.append_entry(Entry(index, self.term, payload))
        self.trace_append(index)
        return index

    def trace_append(self, first: int) -> None:
        """Note what was appended."""
        if not self.tracing:
            return  # a hash of every entry is more than a call to `trace`
        last = self.log.last_index
        hashes, terms = self.log.hashes_from(first), self.log.terms_from(first)
        self.trace("append", first=first, last=last, terms=terms, hashes=hashes)

    def replicate(self) -> set[NodeId]:
        """Send every peer what it lacks, as far as its stream has room; returns those that were sent something."""
        reached: set[NodeId] = set()
        if self.leadership is None:
            return reached
        last, writing = self.log.last_index, self.writing_since is not None
        for peer, progress in self.leadership.progress.items():
            if progress.next_index > last or progress.unreachable or (writing and progress.inflight):
                continue  # it has everything, or has no room
            if self.needs_snapshot(progress):
                if self.send_snapshot(peer, progress):
                    reached.add(peer)
                continue
            while progress.next_index <= last and self.has_room(progress):
                self.send_append(peer, progress)
                reached.add(peer)
        return reached

    def needs_snapshot(self, progress: Progress) -> bool:
        """Implemented where snapshots are."""
        raise AssertionError

    def send_snapshot(self, peer: NodeId, progress: Progress) -> bool:
        """Implemented where snapshots are."""
        raise AssertionError

    def has_room(self, progress: Progress) -> bool:
        """Another message may be on its way to this peer."""
        if progress.unreachable:
            return False
        one_at_a_time = progress.probing or self.writing_since is not None  # the latter: see while_writing.py
        limit = 1 if one_at_a_time else self.config.max_inflight_messages
        return len(progress.inflight) < limit and progress.inflight_bytes < self.config.max_inflight_bytes

    def send_append(self, peer: NodeId, progress: Progress) -> None:
        """Send the next entries."""
        entries = self.log.batch(progress.next_index, self.config.max_payload_entries, self.config.max_payload_bytes)
        before = progress.next_index - 1
        size = self.log.bytes_through(before + len(entries)) - self.log.bytes_through(before)
        progress.sent(self._send_after(peer, before, entries), size)
        if not progress.probing:
            progress.next_index += len(entries)

    def send_beat(self, peer: NodeId, progress: Progress) -> None:
        """Send a heartbeat: an append of nothing, verified like any other.

        Where the stream runs, it names the last entry that is known to agree, so that it cannot overtake entries that
        are on their way and be taken for a conflict. Where that entry was compacted, it names none, and proves nothing
        of the log.
        """
        before = progress.next_index - 1 if progress.probing else progress.match_index
        before = before if before >= self.log.base.index else 0
        progress.paused = False
        progress.beats.add(self._send_after(peer, before, ()))

    def _send_after(self, peer: NodeId, before: int, entries: tuple[Entry, ...]) -> Send:
        request = AppendEntriesRequest(self.term, self.id, before, self.log.term(before), entries, self.commit_index)
        # What a leader sends needs no sync of its own disk first: it counts itself only after that (thesis 10.2.1).
        return self.send(peer, "append_entries", request, early=True)

    def heartbeat(self) -> None:
        """Let every peer hear from this leader, or step down where no quorum was heard from for too long."""
        leadership = self.leadership
        assert leadership is not None
        leadership.next_heartbeat = self.now + self.config.heartbeat_interval * MILLISECOND
        if self.config.check_quorum and not self.quorum_in_contact(leadership):
            self.become_follower(self.term, None)
            self.reset_election_deadline()
            return
        if leadership.transfer is not None:
            leadership.transfer.asked = False
        self.send_heartbeats()

    def send_heartbeats(self) -> None:
        """Let every peer hear from this leader."""
        assert self.leadership is not None
        for peer, progress in self.leadership.progress.items():
            self.send_beat(peer, progress)

    def ask_for_confirmation(self, *, besides: Container[NodeId]) -> None:
        """Let every peer confirm this leadership now, but those `besides` that were just sent entries: they will.

        A peer that has stopped answering is left to the regular heartbeat, which asks the same: rounds follow each
        other quickly, and messages to it would pile up.
        """
        assert self.leadership is not None
        for peer, progress in self.leadership.progress.items():
            room = len(progress.beats) < self.config.max_inflight_messages
            if peer not in besides and not progress.unreachable and room:
                self.send_beat(peer, progress)

    def quorum_in_contact(self, leadership: Leadership) -> bool:
        """A quorum answered something that was sent within the last election timeout (CheckQuorum, thesis 6.2)."""
        horizon = self.now - self.config.election_timeout_max * MILLISECOND
        heard = {peer for peer, progress in leadership.progress.items() if progress.last_contact >= horizon}
        return is_quorum(self.membership, heard | {self.id})

    def append_answered(self, sent: Send, response: AppendEntriesResponse) -> None:
        """A peer answered."""
        if response.term > self.term:
            self.become_follower(response.term, None)
            self.reset_election_deadline()
            return
        request = sent.request
        assert isinstance(request, AppendEntriesRequest)
        leadership = self.leadership
        if leadership is None or request.term != self.term or sent.to not in leadership.progress:
            return
        progress = leadership.progress[sent.to]
        progress.settled(sent)
        if response.term == self.term:
            progress.answered(sent)
        if not response.is_keep_alive:
            progress.replied(sent)
        if response.success:
            asked = request.prev_log_index + len(request.entries)
            verified = response.verified_index if response.verified_index < asked else asked  # nobody saw more of it
            before = progress.match_index
            progress.agreed(verified)
            if progress.match_index != before:  # else a quorum holds what it held
                self.advance_commit_as_leader()
            committed_there = min(request.leader_commit, verified)  # as far as its answer shows
            if progress.leaving and committed_there >= self.log.membership_index:
                del leadership.progress[sent.to]  # it knows that it is no member any more
        elif response.conflict is not None and request.prev_log_index >= progress.match_index:
            progress.probe_from(self.next_after_conflict(request.prev_log_index, response.conflict))

    def next_after_conflict(self, asked: int, hint: ConflictHint) -> int:
        """The first entry to send next, given what the follower said of its log at `asked`."""
        own = self.log.last_index_of_term(hint.term, asked) if hint.term else 0
        return min(own + 1 if own else hint.index, asked)

    def append_failed(self, sent: Send) -> None:
        """A peer did not answer: send it heartbeats only, until it does."""
        if self.leadership is None or sent.to not in self.leadership.progress:
            return
        progress = self.leadership.progress[sent.to]
        had_entries = sent in progress.inflight
        progress.settled(sent)
        if progress.leaving and self.commit_index >= self.log.membership_index:
            del self.leadership.progress[sent.to]  # it will find out when it asks for votes, and gets none
        elif sent.at >= progress.last_reply:  # else it has answered something later: only this one was lost
            progress.unreachable = True
            progress.lost()
        elif had_entries:
            progress.lost()

    # -- committing -----------------------------------------------------------------------------------------------

    def acknowledged_index(self, node: NodeId) -> int:
        """The last entry that `node` holds durably, as far as this leader knows; itself included."""
        if node == self.id:
            return self.durable_index
        leadership = self.leadership
        return leadership.progress[node].match_index if leadership and node in leadership.progress else 0

    def advance_commit_as_leader(self) -> None:
        """Commit what a quorum holds, if it ends with an entry of the current term (5.4.2, figure 8)."""
        index = quorum_value(self.membership, self.acknowledged_index)
        if index > self.commit_index and self.may_commit_by_count(index):
            self.advance_commit(index)

    def proof_of_commit(self) -> dict[str, Any]:
        """For the trace: how far a leader counted each voter; nothing where this node does not lead."""
        if self.leadership is None:
            return {}
        held = self.acknowledged_index
        return {"acks": [{voter: held(voter) for voter in voters} for voters in self.membership.voter_sets()]}

    def may_commit_by_count(self, index: int) -> bool:
        """Only entries of the own term are committed by counting; earlier ones follow with them."""
        return self.log.term(index) == self.term

    def advance_commit(self, index: int) -> None:
        """Entries up to `index` are committed: apply them."""
        if index <= self.commit_index:
            return
        before, self.commit_index = self.commit_index, index
        self.trace("commit", index=index, hash=self.log.prefix_hash(index), **self.proof_of_commit())
        entries = self.log.slice(self.last_applied + 1, index + 1)
        writes = self.leadership.writes if self.leadership else {}
        tokens = {entry.index: writes.pop(entry.index) for entry in entries if entry.index in writes} if writes else {}
        self._effects.append(Apply(entries, tokens))
        self.trace("apply", first=entries[0].index, last=index, hash=self.log.prefix_hash(index))
        self.last_applied = index
        if before < self.log.membership_index <= index and self.state is State.FOLLOWER:
            self.become_follower(self.term, self.leader_id)  # perhaps it is no voter any more, for good
        self.snapshot_if_due()

    def snapshot_if_due(self) -> None:
        """Implemented where snapshots are."""
        raise AssertionError
