"""Snapshots: when they are taken, how a peer is sent one, and how one is taken in (Raft paper, section 7; thesis 5).

Theory of operation
-------------------
The core says when, and of which entry; the data is the storage's, and never comes in here. Three things take long and
are done by the driver beside everything else that goes on, with an event at their end: writing a snapshot
(`TakeSnapshot`), storing a piece of one that a leader sends (`StoreChunk`), and reading a piece to send (the driver
puts it into the request). A node that does any of these goes on hearing its leader, voting and leading.

A snapshot is installed in one step between two others: the received file becomes the node's snapshot and the log
begins after it, in one `Persist`, and only then does the state machine change (`Restore`). If the node dies between the
file and the log, the storage finds on starting that the log does not lead to the snapshot, and begins it anew there.

Only what is committed is in a snapshot. So one that ends at or before the commit index has nothing to tell.
"""

from __future__ import annotations

from raftbed.nodes.raft.errors import SnapshotError, because_of
from raftbed.nodes.raft.events import (
    AbortSnapshot,
    ChunkStored,
    Restore,
    Send,
    StoreChunk,
    TakeSnapshot,
    Token,
)
from raftbed.nodes.raft.log import Log
from raftbed.nodes.raft.messages import (
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    MembershipConfig,
    NodeId,
    SnapshotMeta,
)
from raftbed.nodes.raft.progress import Progress, Stream
from raftbed.nodes.raft.replication import Replication
from raftbed.nodes.raft.state import Incoming, State


class Snapshots(Replication):
    """The part of the core that keeps logs short."""

    # -- taking ---------------------------------------------------------------------------------------------------

    def snapshot_if_due(self) -> None:
        """Take one when the policy says so."""
        policy = self.config.snapshot_policy
        since = self.last_applied - max(self.compaction_tried, self.snapshot.index if self.snapshot else 0)
        if policy is not None and since >= policy.entries and self.may_take_snapshot():
            self.take_snapshot()

    def may_take_snapshot(self) -> bool:
        """None is being taken, or stored; and no peer is in the middle of being sent the one that there is.

        A newer one would make the peer begin again. But one that never comes to the end must not let the log grow for
        ever: past ten times what the policy says, it has had its time.
        """
        if self.compacting is not None or (self.incoming is not None and self.incoming.busy):
            return False
        policy, since = self.config.snapshot_policy, self.last_applied - (self.snapshot.index if self.snapshot else 0)
        if policy is not None and since >= 10 * policy.entries:
            return True
        streams = self.leadership.progress.values() if self.leadership else ()
        return not any(stream.stream is Stream.SNAPSHOT and not stream.unreachable for stream in streams)

    def take_snapshot(self) -> None:
        """Have the state of this moment written down."""
        index = self.compacting = self.compaction_tried = self.last_applied
        membership = self.log.membership_at(index) or MembershipConfig(())
        base = self.log.base_at(index)
        self._effects.append(TakeSnapshot(SnapshotMeta(index, base.term, base.hash, membership)))

    def snapshot_requested(self, token: Token) -> None:
        """An operator wants one."""
        if self.snapshot is not None and self.snapshot.index == self.last_applied:
            self.respond(token, self.snapshot)
        elif self.last_applied == 0:
            self.respond(token, SnapshotError("nothing was applied yet"))
        elif self.compacting is not None:
            self.compaction_waiters.append(token)
        elif not self.may_take_snapshot():
            self.respond(token, SnapshotError("a snapshot is being transferred; try again later"))
        else:
            self.compaction_waiters.append(token)
            self.take_snapshot()

    def snapshot_taken(self, snapshot: SnapshotMeta) -> None:
        """It is durable: the log needs to keep only a few entries before it."""
        if snapshot.index != self.compacting:
            return  # aborted, when it was too late to stop it
        self.compacting = None
        self.snapshot = snapshot
        self.trace("snapshot", index=snapshot.index, hash=snapshot.hash, installed=False)
        self.compact_log(snapshot.index - self.config.trailing_logs)
        self._answer_compaction(snapshot)

    def snapshot_failed(self, index: int, reason: str, cause: Exception | None) -> None:
        """It could not be written; try again when the policy next says so."""
        if index == self.compacting:
            self.compacting = None
            self._answer_compaction(because_of(cause, SnapshotError(reason)))

    def abort_compaction(self) -> None:
        """A leader sends a snapshot: what is being written here will not be needed."""
        if self.compacting is not None:
            self.compacting = None
            self._effects.append(AbortSnapshot())
            self._answer_compaction(SnapshotError("aborted: the leader sends a newer snapshot"))

    def _answer_compaction(self, answer: SnapshotMeta | Exception) -> None:
        waiters, self.compaction_waiters = self.compaction_waiters, []
        for token in waiters:
            self.respond(token, answer)

    # -- sending --------------------------------------------------------------------------------------------------

    def needs_snapshot(self, progress: Progress) -> bool:
        """The peer lacks entries that the log does not have, or so many that the snapshot is the shorter way."""
        snapshot = self.snapshot
        if snapshot is None:
            return False
        if progress.stream is Stream.SNAPSHOT or progress.next_index <= self.log.base.index:
            return True
        behind = snapshot.index - (progress.next_index - 1)
        return behind > self.config.replication_lag_threshold and not progress.inflight

    def send_snapshot(self, peer: NodeId, progress: Progress) -> bool:
        """Send the next piece, unless one is on its way; tells whether it did."""
        snapshot = self.snapshot
        assert snapshot is not None
        if progress.snapshot is None or progress.snapshot.id != snapshot.id:
            progress.begin_snapshot(snapshot)
        if progress.sending is not None or progress.paused:
            return False
        request = InstallSnapshotRequest(self.term, self.id, snapshot, progress.offset)
        progress.sending = self.send(peer, "install_snapshot", request, early=True)
        return True

    def install_answered(self, sent: Send, response: InstallSnapshotResponse) -> None:
        """A peer answered to a piece."""
        if response.term > self.term:
            self.become_follower(response.term, None)
            self.reset_election_deadline()
            return
        request, leadership = sent.request, self.leadership
        assert isinstance(request, InstallSnapshotRequest)
        if leadership is None or request.term != self.term or sent.to not in leadership.progress:
            return
        progress = leadership.progress[sent.to]
        current = progress.sending is sent
        progress.settled(sent)
        progress.answered(sent)
        progress.replied(sent)
        if response.installed:
            if progress.stream is Stream.SNAPSHOT:
                progress.end_snapshot(request.snapshot.index)
            else:
                progress.agreed(request.snapshot.index)
            self.advance_commit_as_leader()
        elif current and progress.snapshot is not None and progress.snapshot.id == request.snapshot.id:
            progress.paused = response.next_offset == request.offset
            progress.offset = max(0, min(response.next_offset, request.snapshot.size))

    # -- taking in ------------------------------------------------------------------------------------------------

    def install_requested(self, token: Token, request: InstallSnapshotRequest) -> None:
        """A leader sends a piece of a snapshot."""
        if request.term < self.term or (request.term == self.term and self.state is State.LEADER):
            self.respond(token, InstallSnapshotResponse(self.term))
            return
        self.follow(request.term, request.leader_id)
        snapshot, incoming = request.snapshot, self.incoming
        if snapshot.index <= self.commit_index:
            self.respond(token, InstallSnapshotResponse(self.term, snapshot.size, installed=True))
        elif incoming is not None and incoming.busy:
            self.respond(token, InstallSnapshotResponse(self.term, request.offset))
        else:
            if incoming is None or incoming.id != snapshot.id:
                incoming = self.incoming = Incoming(snapshot.id)
            if request.offset != incoming.next_offset:
                self.respond(token, InstallSnapshotResponse(self.term, incoming.next_offset))
                return
            self.abort_compaction()
            incoming.busy = True
            self._effects.append(StoreChunk(token, request))

    def chunk_stored(self, event: ChunkStored) -> None:
        """A piece is stored, or the whole of it turned out to be damaged."""
        snapshot, incoming = event.request.snapshot, self.incoming
        assert incoming is not None and incoming.id == snapshot.id, "one piece at a time is stored"
        incoming.busy = False
        incoming.next_offset = event.next_offset
        if not event.complete:
            self.respond(event.token, InstallSnapshotResponse(self.term, event.next_offset))
            return
        self.incoming = None
        if snapshot.index > self.commit_index and self.leadership is None:  # a leader's log has all of it
            self.install(snapshot)
        self.respond(event.token, InstallSnapshotResponse(self.term, snapshot.size, installed=True))

    def install(self, snapshot: SnapshotMeta) -> None:
        """Begin with the received snapshot; entries after it that the log has, and that follow it, stay."""
        self.abort_compaction()
        self.snapshot = self._install = snapshot
        if snapshot.index <= self.log.last_index and self.log.matches(snapshot.index, snapshot.term):
            self.log.compact(snapshot.index)
        else:
            if snapshot.index <= self.log.last_index:
                self.truncate_log(self.commit_index + 1)  # it contradicts; a shorter one is only overtaken
            self._new_entries = []
            self.log = Log((), snapshot.base(), snapshot.membership)
        self.log_begins_after_snapshot()
        self.commit_index = self.last_applied = snapshot.index
        self.durable_index = max(min(self.durable_index, self.log.last_index), snapshot.index)
        self.trace("snapshot", index=snapshot.index, hash=snapshot.hash, installed=True)
        self._effects.append(Restore(snapshot))
        self.become_follower(self.term, self.leader_id)  # the membership may be another
