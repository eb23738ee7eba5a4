"""Linearizable reads without log entries: ReadIndex (Raft thesis 6.4), in rounds that concurrent reads share.

A read must see everything that was committed when it came. A leader may serve it when it has committed an entry of its
own term (else it does not know what is committed), a quorum has acknowledged a message that was sent after the read
came (else another may lead), and the state machine has applied the commit index of that moment.

With leases (6.4.1), off by default, a read need not ask anyone as long as nobody else can lead: a quorum answered
something that was sent less than a lease ago, and each of them refuses its vote for the least election timeout after
it heard. The lease is shorter than that by what clocks may differ in speed. It protects nothing once this leader itself
told a peer to stand.
"""

from __future__ import annotations

from raftbed.nodes.raft.config import MILLISECOND
from raftbed.nodes.raft.errors import ReadForwardToLeader, ReadOverloaded
from raftbed.nodes.raft.events import Token
from raftbed.nodes.raft.messages import NodeId
from raftbed.nodes.raft.progress import NEVER
from raftbed.nodes.raft.quorum import quorum_value
from raftbed.nodes.raft.state import CoreState, Leadership


class Reads(CoreState):
    """The part of the core that confirms reads."""

    def read_requested(self, token: Token) -> None:
        """The application wants to read: in the next round, if this node leads."""
        leadership = self.leadership
        if leadership is None:
            self.respond(token, ReadForwardToLeader(self.leader_id))
        elif self.lease_holds(leadership):
            self.respond(token, self.commit_index)
        elif len(leadership.reads_waiting) >= self.config.max_waiting_reads:
            self.respond(token, ReadOverloaded(f"{len(leadership.reads_waiting)} reads wait to be confirmed"))
        else:
            leadership.reads_waiting.append(token)

    def lease_holds(self, leadership: Leadership) -> bool:
        """Nobody else can lead yet, and what is committed here is known and applied."""
        if self.config.read_mode != "lease" or leadership.lease_given_up or not self.own_term_committed(leadership):
            return False
        full = self.config.election_timeout_min * MILLISECOND
        lease = full * (100 - self.config.lease_drift_percent) // 100
        return self.now < quorum_value(self.membership, self.acknowledged_at) + lease

    def acknowledged_at(self, node: NodeId) -> int:
        """When the latest message was sent that `node` answered; itself included."""
        leadership = self.leadership
        if node == self.id:
            return self.now
        return leadership.progress[node].acked_at if leadership and node in leadership.progress else NEVER

    def begin_read_round(self) -> bool:
        """Start a round for the reads that wait, if none is under way. True: a message to all peers is due."""
        leadership = self.leadership
        if (
            leadership is None
            or leadership.reads_in_round
            or not leadership.reads_waiting
            or not self.own_term_committed(leadership)
        ):
            return False
        leadership.round += 1
        leadership.reads_in_round, leadership.reads_waiting = leadership.reads_waiting, []
        leadership.read_index = self.commit_index
        return True

    def own_term_committed(self, leadership: Leadership) -> bool:
        """The leader knows what is committed: an entry of its own term is."""
        return self.commit_index >= leadership.first_own_index

    def acknowledged_round(self, node: NodeId) -> int:
        """The latest round in which `node` confirmed this leadership; itself included."""
        leadership = self.leadership
        if leadership is None:
            return 0
        if node == self.id:
            return leadership.round
        return leadership.progress[node].acked_round if node in leadership.progress else 0

    def round_confirmed(self, leadership: Leadership) -> bool:
        """A quorum confirmed the present round."""
        return quorum_value(self.membership, self.acknowledged_round) >= leadership.round

    def applied_far_enough(self, leadership: Leadership) -> bool:
        """The state machine has seen what the present round's reads must see."""
        return self.last_applied >= leadership.read_index

    def finish_read_round(self) -> None:
        """Let the reads of the present round go, if they may."""
        leadership = self.leadership
        if (
            leadership is not None
            and leadership.reads_in_round
            and self.round_confirmed(leadership)
            and self.applied_far_enough(leadership)
        ):
            for token in leadership.reads_in_round:
                self.respond(token, leadership.read_index)
            leadership.reads_in_round = []
