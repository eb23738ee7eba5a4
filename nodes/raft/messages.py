"""What Raft nodes store and say to each other: entries, configurations, and the messages of the protocol.

Indexes and terms start at 1; 0 stands for "before the first". A node id is a short string.
Names and fields follow async-raft 0.6.1 and the Raft paper, section 5.

All are `gc=False`: they are trees that come from or go to bytes, and never part of a cycle; a log of them is so large
that each full run of the garbage collector would hold the node up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

NodeId = str
MOST = (1 << 62) - 1
"""The greatest term, index or size that is taken from a peer: room to count on, within what a disk record can hold."""
AnsweredNumber = Annotated[int, msgspec.Meta(ge=0, le=MOST)]
"""A term, an index or an offset in an answer. Decoding an answer refuses other numbers; of requests,
`is_well_formed` does, which must agree with each other besides."""
_HASH = re.compile("[0-9a-f]{16}")


class MembershipConfig(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who takes part in decisions.

    Attributes:
        members: the voters, sorted.
        members_after_consensus: during a change of membership (joint consensus), the voters that come next.
        non_voters: are sent the log, and are not counted; sorted.
        addresses: where nodes are found, as far as the cluster was told: what a node that restarts knows of others.
    """

    members: tuple[NodeId, ...]
    members_after_consensus: tuple[NodeId, ...] | None = None
    non_voters: tuple[NodeId, ...] = ()
    addresses: tuple[tuple[NodeId, str], ...] = ()

    def voter_sets(self) -> tuple[tuple[NodeId, ...], ...]:
        """The sets of voters of which each must give its majority; two during joint consensus."""
        if self.members_after_consensus is None:
            return (self.members,)
        return (self.members, self.members_after_consensus)

    def voters(self) -> tuple[NodeId, ...]:
        """Everyone who votes in one of the sets, sorted."""
        return tuple(sorted({node for voters in self.voter_sets() for node in voters}))

    def is_well_formed(self) -> bool:
        """There are voters, and none is named twice in a set: it would be counted twice in a majority."""
        return all(voters and len(set(voters)) == len(voters) for voters in self.voter_sets())

    def is_voter(self, node: NodeId) -> bool:
        """`node` votes in one of the sets."""
        after = self.members_after_consensus
        return node in self.members or (after is not None and node in after)

    def nodes(self) -> tuple[NodeId, ...]:
        """Everyone who is sent the log, sorted."""
        return tuple(sorted({*self.voters(), *self.non_voters}))

    @property
    def is_joint(self) -> bool:
        """A change of voters is under way: two sets of voters decide."""
        return self.members_after_consensus is not None

    def with_non_voters(self, nodes: Iterable[NodeId], addresses: Mapping[NodeId, str]) -> MembershipConfig:
        """The same voters, and `nodes` as non-voters beside those that there are."""
        added = set(nodes) - set(self.voters())
        known = {**dict(self.addresses), **addresses}
        return MembershipConfig(
            self.members,
            self.members_after_consensus,
            tuple(sorted({*self.non_voters, *added})),
            tuple(sorted((node, known[node]) for node in {*self.nodes(), *added} if node in known)),
        )

    def without_non_voter(self, node: NodeId) -> MembershipConfig:
        """The same, but for a non-voter."""
        non_voters = tuple(other for other in self.non_voters if other != node)
        addresses = tuple((other, address) for other, address in self.addresses if other != node)
        return MembershipConfig(self.members, self.members_after_consensus, non_voters, addresses)

    def joint(self, members: Iterable[NodeId]) -> MembershipConfig:
        """On the way to `members`: both sets of voters decide (Raft paper, section 6)."""
        after = tuple(sorted(set(members)))
        non_voters = tuple(node for node in self.non_voters if node not in after)
        return MembershipConfig(self.members, after, non_voters, self.addresses)

    def uniform(self) -> MembershipConfig:
        """Where a joint configuration leads: the new voters alone; who is in neither set is forgotten."""
        assert self.members_after_consensus is not None
        members = self.members_after_consensus
        staying = {*members, *self.non_voters}
        addresses = tuple((node, address) for node, address in self.addresses if node in staying)
        return MembershipConfig(members, None, self.non_voters, addresses)


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node must never forget (Raft paper, figure 2: persistent state).

    Attributes:
        current_term: the latest term that this node has seen.
        voted_for: whom it voted for in that term.
        removed_at: the configuration that took its vote away, once that is known to be committed: a node that restarts
            does not know what is committed, and must not stand for election because it was a voter once.
    """

    current_term: int = 0
    voted_for: NodeId | None = None
    removed_at: int = 0


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
        """Its entries follow `prev_log_index` without a gap, no term is older than the one before, or too new, and
        memberships among them can be."""
        newest, index, term = self.term, self.prev_log_index, self.prev_log_term
        if not (1 <= newest <= MOST and 0 <= index <= MOST and 0 <= self.leader_commit <= MOST):
            return False
        if not 0 <= term <= newest or (term == 0) != (index == 0):
            return False
        least = term or 1
        for entry in self.entries:
            index += 1
            term = entry.term
            if entry.index != index or term < least or term > newest:
                return False
            least = term
            if type(entry.payload) is ConfigChange and not entry.payload.membership.is_well_formed():
                return False
        return True


class ConflictHint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a leader should look for agreement next (Raft paper, end of section 5.3).

    Attributes:
        term: term of the follower's entry at prev_log_index; 0 where it has none.
        index: the first index that it has of that term; where it has no entry, the one after its last.
    """

    term: AnsweredNumber
    index: AnsweredNumber


class AppendEntriesResponse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `AppendEntriesRequest`.

    Attributes:
        term: the follower's, for the leader to step down by.
        success: its log agreed at prev_log_index and now holds `entries`, durably.
        verified_index: with `success`, the last index that is known to agree with the leader's log.
        conflict: without it, where to look next; None when the term was the reason, and in a keep-alive.
    """

    term: AnsweredNumber
    success: bool
    verified_index: AnsweredNumber = 0
    conflict: ConflictHint | None = None

    @property
    def is_keep_alive(self) -> bool:
        """To a request of this very term: the follower heard it while its disk worked, and says nothing of its log."""
        return not self.success and self.conflict is None


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

    def is_well_formed(self) -> bool:
        """Its numbers can be those of a node."""
        log_is_empty = self.last_log_index == 0
        return (
            1 <= self.term <= MOST
            and 0 <= self.last_log_index <= MOST
            and 0 <= self.last_log_term <= self.term
            and (self.last_log_term == 0) == log_is_empty
        )


class VoteResponse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `VoteRequest`.

    Attributes:
        term: the voter's.
        vote_granted: the vote, or for a PreVote the promise, was given.
    """

    term: AnsweredNumber
    vote_granted: bool


class LogBase(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a compacted log begins: the last entry that is not in it any more.

    Attributes:
        index: of that entry; 0 for a log that has everything.
        term: of that entry.
        hash: of the prefix that ends with it.
    """

    index: int = 0
    term: int = 0
    hash: str = "0" * 16


BEGINNING = LogBase()
"""The base of a log that has everything."""


class SnapshotMeta(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Says which snapshot it is; the data itself is storage's.

    Attributes:
        index: the last entry that the snapshot includes.
        term: of that entry.
        hash: of the prefix that ends with it.
        membership: in force there.
        size: bytes of data; 0 as long as the snapshot is not written.
        checksum: CRC-32 of the data.
    """

    index: int
    term: int
    hash: str
    membership: MembershipConfig
    size: int = 0
    checksum: int = 0

    @property
    def id(self) -> str:
        """Equal for snapshots that hold the same: chunks of one may follow chunks of the other."""
        return f"{self.index:020d}-{self.term}-{self.checksum:08x}"

    def is_well_formed(self) -> bool:
        """A log can begin after it, and a file can have its name."""
        return (
            0 < self.index <= MOST
            and 0 < self.term <= MOST
            and _HASH.fullmatch(self.hash) is not None
            and self.membership.is_well_formed()
            and 0 <= self.size <= MOST
            and 0 <= self.checksum < 1 << 32
        )

    def base(self) -> LogBase:
        """Where a log begins that the snapshot stands before."""
        return LogBase(self.index, self.term, self.hash)


class InstallSnapshotRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A piece of a snapshot, for a peer that lacks entries which the leader's log does not have any more.

    Attributes:
        term: the leader's.
        leader_id: who it is.
        snapshot: which one: last included index and term, membership, size and checksum.
        offset: of `data` within the snapshot.
        data: the piece.
        done: it is the last one.
    """

    term: int
    leader_id: NodeId
    snapshot: SnapshotMeta
    offset: int
    data: bytes = b""
    done: bool = False

    def is_well_formed(self) -> bool:
        """The snapshot can be, and the piece is one of it."""
        meta = self.snapshot
        return (
            meta.is_well_formed()
            and meta.term <= self.term <= MOST
            and self.offset >= 0
            and self.offset + len(self.data) <= meta.size
            and self.done == (self.offset + len(self.data) == meta.size)
        )


class InstallSnapshotResponse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `InstallSnapshotRequest`.

    Attributes:
        term: the receiver's, for the leader to step down by.
        next_offset: what to send next. No progress says: busy, try again later.
        installed: the receiver holds everything that the snapshot includes, durably.
    """

    term: AnsweredNumber
    next_offset: AnsweredNumber = 0
    installed: bool = False


class TimeoutNowRequest(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A leader asks a peer to stand for election at once (leadership transfer, Raft thesis 3.10)."""

    term: int
    leader_id: NodeId

    def is_well_formed(self) -> bool:
        """The term can be."""
        return 0 < self.term <= MOST


class TimeoutNowResponse(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Answer to `TimeoutNowRequest`: the peer's term."""

    term: AnsweredNumber


Request = AppendEntriesRequest | VoteRequest | InstallSnapshotRequest | TimeoutNowRequest
Response = AppendEntriesResponse | VoteResponse | InstallSnapshotResponse | TimeoutNowResponse
