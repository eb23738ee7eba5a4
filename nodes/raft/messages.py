"""What Raft nodes store and say to each other: entries, configurations, and the messages of the protocol.

Indexes and terms start at 1; 0 stands for "before the first". A node id is a short string.
Names and fields follow async-raft 0.6.1 and the Raft paper, section 5.

All are `gc=False`: they are trees that came from or go to bytes and cannot be part of a cycle, and a log of them is large
enough for each full run of the garbage collector to hold the node up.
"""

from __future__ import annotations

from typing import Any

import msgspec

NodeId = str


class MembershipConfig(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who takes part in decisions.

    Attributes:
        members: the voters, sorted.
        members_after_consensus: during a change of membership (joint consensus), the voters that come next.
    """

    members: tuple[NodeId, ...]
    members_after_consensus: tuple[NodeId, ...] | None = None

    def voter_sets(self) -> tuple[tuple[NodeId, ...], ...]:
        """The sets of voters of which each must give its majority; two during joint consensus."""
        if self.members_after_consensus is None:
            return (self.members,)
        return (self.members, self.members_after_consensus)

    def voters(self) -> tuple[NodeId, ...]:
        """Everyone who votes in one of the sets, sorted."""
        return tuple(sorted({node for voters in self.voter_sets() for node in voters}))

    def is_voter(self, node: NodeId) -> bool:
        """`node` votes in one of the sets."""
        return any(node in voters for voters in self.voter_sets())


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node must never forget (Raft paper, figure 2: persistent state).

    Attributes:
        current_term: the latest term that this node has seen.
        voted_for: whom it voted for in that term.
    """

    current_term: int = 0
    voted_for: NodeId | None = None


class Blank(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="blank"):
    """An entry without content, by which a new leader commits what earlier terms left (Raft paper, section 8)."""


class Normal(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="normal"):
    """A command of the application.

    Attributes:
        data: whatever msgpack can carry.
    """

    data: Any


class ConfigChange(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="config"):
    """A new membership, in force on each node as soon as it is appended there (Raft paper, section 6)."""

    membership: MembershipConfig


Payload = Blank | Normal | ConfigChange


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One place of the replicated log."""

    index: int
    term: int
    payload: Payload


class AppendEntriesRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Replication and heartbeat (Raft paper, figure 2).

    Attributes:
        term: the leader's.
        leader_id: who it is.
        prev_log_index: index of the entry before the first of `entries`.
        prev_log_term: its term.
        entries: to be appended; none in a heartbeat.
        leader_commit: the leader's commit index.
    """

    term: int
    leader_id: NodeId
    prev_log_index: int
    prev_log_term: int
    entries: tuple[Entry, ...]
    leader_commit: int

    def is_well_formed(self) -> bool:
        """Its entries follow `prev_log_index` without a gap, and no term is older than the one before, or too new."""
        before, term = self.prev_log_index, self.prev_log_term
        for entry in self.entries:
            if entry.index != before + 1 or not term <= entry.term <= self.term:
                return False
            before, term = entry.index, entry.term
        return self.prev_log_index >= 0 and self.leader_commit >= 0


class ConflictHint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a leader should look for agreement next (Raft paper, end of section 5.3).

    Attributes:
        term: term of the follower's entry at prev_log_index; 0 where it has none.
        index: the first index that it has of that term; where it has no entry, the one after its last.
    """

    term: int
    index: int


class AppendEntriesResponse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `AppendEntriesRequest`.

    Attributes:
        term: the follower's, for the leader to step down by.
        success: its log agreed at prev_log_index and now holds `entries`, durably.
        verified_index: with `success`, the last index that is known to agree with the leader's log.
        conflict: without it, where to look next; None when the term was the reason.
    """

    term: int
    success: bool
    verified_index: int = 0
    conflict: ConflictHint | None = None


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Request for a vote, or for a promise of one (PreVote, Raft thesis 9.6; the method called tells which).

    Attributes:
        term: the candidate's; for a PreVote, the term that it would campaign in.
        candidate_id: who asks.
        last_log_index: of its log.
        last_log_term: of its log.
        leadership_transfer: the leader itself asked for this election, so that it passes the live-leader check.
    """

    term: int
    candidate_id: NodeId
    last_log_index: int
    last_log_term: int
    leadership_transfer: bool = False


class VoteResponse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `VoteRequest`.

    Attributes:
        term: the voter's.
        vote_granted: the vote, or for a PreVote the promise, was given.
    """

    term: int
    vote_granted: bool


Request = AppendEntriesRequest | VoteRequest
Response = AppendEntriesResponse | VoteResponse
