"""What a node says while its disk works: a leader lets itself be heard, and a follower says that it hears.

Theory of operation
-------------------
While the disk works, no event is stepped, because nearly all that could come of it depends on that write. A write that
takes longer than an election timeout (a slow sync, a disk that others use, too) would then look like the death of the
node. Two things depend on no write, and go on:

- A leader sends heartbeats. Its term is on disk, since it led only once its vote was; the entry that a heartbeat names
  is one to compare with, no claim about the leader's disk; and what it calls committed is held by a quorum, in which
  it counts itself only for what it has synced (Raft thesis 10.2.1). What peers answer is taken with everything else
  that comes in, and before the leader next looks whether a quorum was in contact (CheckQuorum).
- A follower answers heartbeats of the leader that it follows, if its term and vote are on disk. It says only that it
  does follow that leader in that term (`AppendEntriesResponse.is_keep_alive`): nothing of its log, of which no one
  knows how much will be on disk, and nothing of its vote. Such an answer counts as contact, as any other does: for
  CheckQuorum and for a round of reads, which both ask whether the peer still was in the leader's term after the
  question. Whatever it votes in a later term it votes after that; and since its term is on disk, no restart takes it
  back. A lease asks besides that the peer refuses its vote for a while: it does, since it has heard its leader.

A leader whose disk works on one write for too long (`Config.disk_stall_timeouts`) falls silent, and is replaced: a disk
that hangs must not lead. A follower need not fall silent: it acknowledges nothing, and is sent no entries after one
message with some was not acknowledged in time.
"""

from __future__ import annotations

from raftbed.nodes.raft.config import MILLISECOND
from raftbed.nodes.raft.events import Received, Send
from raftbed.nodes.raft.messages import AppendEntriesRequest, AppendEntriesResponse
from raftbed.nodes.raft.replication import Replication
from raftbed.nodes.raft.state import State


class KeepAlive(Replication):
    """The part of the core that goes on between a `Ready` with something to persist and its `Durable`."""

    @property
    def deadline_while_writing(self) -> int | None:
        """When to call `beat`, in nanoseconds; None: not before the disk is done."""
        leadership = self.leadership
        if leadership is None or self.writing_since is None:
            return None
        due = max(leadership.next_heartbeat, self.beat_at + self.config.heartbeat_interval * MILLISECOND)
        return due if due < self.silent_from else None

    @property
    def silent_from(self) -> int:
        """When a leader whose disk still works on the same write falls silent, in nanoseconds."""
        assert self.writing_since is not None
        return self.writing_since + self.config.disk_stall_timeouts * self.config.election_timeout_max * MILLISECOND

    def beat(self, now: int) -> tuple[Send, ...]:
        """The heartbeats that are due though the disk works; send them at once."""
        due = self.deadline_while_writing
        if due is None or now < due:
            return ()
        self.now = self.beat_at = now
        self.send_heartbeats()
        messages, self._early = tuple(self._early), []
        return messages

    def hear(self, event: Received, now: int) -> AppendEntriesResponse | None:
        """What to answer at once though the disk works; None: nothing, step the event when the disk is done."""
        request = event.request
        if (
            self.writing_since is None
            or not isinstance(request, AppendEntriesRequest)
            or request.entries
            or request.term != self.term
            or request.leader_id != self.leader_id
            or self.hard_state != self.durable_hard_state
            or self.state not in (State.FOLLOWER, State.NON_VOTER)
        ):
            return None
        self.now = self.leader_heard = now
        self.reset_election_deadline()
        self.heard = request
        return AppendEntriesResponse(self.term, success=False)

    def learn_from_heard(self) -> None:
        """The disk is done: take from the last heartbeat that was only answered what is committed."""
        request, self.heard = self.heard, None
        if request is not None and self.log.matches(request.prev_log_index, request.prev_log_term):
            self.advance_commit_as_follower(request.leader_commit, request.prev_log_index)
