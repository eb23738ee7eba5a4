"""The state that all parts of the core share, and the small steps that they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any

from raftbed.nodes.raft.config import MILLISECOND, Config
from raftbed.nodes.raft.errors import ConfigChangeUnknown, LeadershipLost, LogContradiction, ReadForwardToLeader
from raftbed.nodes.raft.events import Effect, Method, Persist, Respond, Send, Token, Trace
from raftbed.nodes.raft.log import Log
from raftbed.nodes.raft.messages import (
    BEGINNING,
    AppendEntriesRequest,
    Entry,
    HardState,
    LogBase,
    MembershipConfig,
    NodeId,
    Request,
    SnapshotMeta,
)
from raftbed.nodes.raft.progress import Progress

_NOBODY = MembershipConfig(())


class State(StrEnum):
    """What a node is at the moment."""

    NON_VOTER = "non-voter"
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class RaftMetrics:
    """What a node is and knows, at one moment.

    Attributes:
        id: of the node.
        state: what it is.
        current_term: the latest term that it has seen.
        last_log_index: its last entry.
        commit_index: what it knows to be committed.
        last_applied: what its state machine has seen.
        current_leader: good for routing, never proof against a stale read.
        membership_config: in force.
    """

    id: NodeId
    state: State
    current_term: int = 0
    last_log_index: int = 0
    commit_index: int = 0
    last_applied: int = 0
    current_leader: NodeId | None = None
    membership_config: MembershipConfig = field(default_factory=lambda: MembershipConfig(()))


@dataclass(slots=True)
class Change:
    """A change of the voters that an operator asked for.

    Attributes:
        token: who asked.
        members: the voters that there are to be.
        begun: the joint configuration is in the log.
    """

    token: Token
    members: tuple[NodeId, ...]
    begun: bool = False


@dataclass(slots=True)
class Join:
    """A non-voter that is being brought up, or removed.

    Attributes:
        token: who asked.
        node: which node.
        index: the configuration that names it, or does not any more.
        leaving: it is being removed.
    """

    token: Token
    node: NodeId
    index: int
    leaving: bool = False


@dataclass(slots=True)
class Transfer:
    """A leadership that is being handed over.

    Attributes:
        token: who asked.
        target: who is to lead.
        deadline: when to give up, in nanoseconds.
        asked: the target was told to stand, since the last heartbeat.
    """

    token: Token
    target: NodeId
    deadline: int
    asked: bool = False


@dataclass(slots=True)
class Incoming:
    """A snapshot that a leader is sending.

    Attributes:
        id: which one.
        next_offset: what is needed next.
        busy: a piece is being stored.
    """

    id: str
    next_offset: int = 0
    busy: bool = False


@dataclass(slots=True)
class Leadership:
    """What only a leader has; it dies with the leadership.

    Attributes:
        progress: of each peer.
        first_own_index: the entry of its own term with which it began; reads wait for it to be committed.
        writes: index to token, of writes that nobody has been told about.
        next_heartbeat: when, in nanoseconds.
        round: number of the latest round of read confirmations.
        reads_waiting: for the next round.
        reads_in_round: for the present one.
        read_index: what the present round's reads must see applied.
        change: of the voters, that is under way.
        joins: non-voters that somebody waits for.
        transfer: of this leadership, that is under way.
        lease_given_up: a peer was told to stand; from then on live-leader checks protect this leadership no more.
    """

    progress: dict[NodeId, Progress]
    first_own_index: int
    next_heartbeat: int
    writes: dict[int, Token] = field(default_factory=dict)
    round: int = 0
    reads_waiting: list[Token] = field(default_factory=list)
    reads_in_round: list[Token] = field(default_factory=list)
    read_index: int = 0
    change: Change | None = None
    joins: list[Join] = field(default_factory=list)
    transfer: Transfer | None = None
    lease_given_up: bool = False


class CoreState:
    """Base of the core: its variables, and how they change.

    Parameters:
        node: this node's id.
        config: how it behaves.
        random: draws election timeouts.
        hard_state: from storage.
        entries: from storage.
        base: what they follow.
        snapshot: from storage; includes everything up to `base`, or more.
        now: nanoseconds on whatever clock the driver uses throughout.
    """

    def __init__(
        self,
        node: NodeId,
        config: Config,
        random: Random,
        *,
        hard_state: HardState,
        entries: Sequence[Entry],
        now: int,
        base: LogBase = BEGINNING,
        snapshot: SnapshotMeta | None = None,
    ) -> None:
        self.id = node
        self.config = config
        self.random = random
        self.term = hard_state.current_term  # as `hard_state` has it; kept, because it is asked for everywhere
        self._hard_state = self.durable_hard_state = hard_state
        self.log = Log(entries, base, snapshot.membership if snapshot else None)
        self.snapshot = snapshot
        self.durable_index = self.log.last_index
        self.initial_membership: MembershipConfig | None = None
        self.state = State.NON_VOTER
        self.leader_id: NodeId | None = None
        self.leader_heard: int | None = None  # when a leader of the current term was last heard from
        self.election_deadline = now
        self.votes: set[NodeId] = set()
        self.leadership: Leadership | None = None
        self.commit_index = self.last_applied = snapshot.index if snapshot else 0
        self.compacting: int | None = None  # the last entry of the snapshot that is being taken
        self.compaction_tried = self.last_applied  # where it was last tried to take one
        self.compaction_waiters: list[Token] = []
        self.incoming: Incoming | None = None
        self.now = now
        self._idle = False  # all that there was to do has been said, and nothing was stepped since
        self._early: list[Send] = []
        self._effects: list[Effect] = []
        self._traces: list[Trace] = []
        self.tracing = True  # someone takes the traces
        self._traced_role: tuple[str, int, NodeId | None] | None = None
        self.writing_since: int | None = None  # the disk works since then
        self.writes_as_leader = False  # on what a leader appended, and on nothing else (while_writing.py)
        self.beat_at = now  # when heartbeats were last sent while it did
        self.heard: AppendEntriesRequest | None = None  # the last heartbeat that came while it did
        self._new_hard_state: HardState | None = None
        self._truncate_from: int | None = None
        self._new_entries: list[Entry] = []
        self._compact_to: LogBase | None = None
        self._install: SnapshotMeta | None = None

    # -- views ----------------------------------------------------------------------------------------------------

    @property
    def hard_state(self) -> HardState:
        """The current term, and the vote in it."""
        return self._hard_state

    @hard_state.setter
    def hard_state(self, state: HardState) -> None:
        self._hard_state = state
        self.term = state.current_term

    @property
    def membership(self) -> MembershipConfig:
        """The membership in force: the latest in the log, else the one given to `initialize`."""
        found = self.log.latest_membership
        return found if found is not None else self.initial_membership or _NOBODY

    def peers(self) -> list[NodeId]:
        """Every other voter."""
        return [voter for voter in self.membership.voters() if voter != self.id]

    def may_stand(self) -> bool:
        """This node is a voter, or was one until a configuration that is not known to be committed.

        Such a one may be needed: it may be the only one of the old voters that has the new configuration, and nobody
        else can then be elected. It does not count its own vote (Raft thesis 4.2.2).
        """
        known = max(self.commit_index, self.hard_state.removed_at)
        return self.membership.is_voter(self.id) or self.log.is_voter_since(self.id, known)

    def is_pristine(self) -> bool:
        """Nothing ever happened to this node."""
        return self.log.last_index == 0 and self.term == 0 and self.state is State.NON_VOTER

    # -- small steps ----------------------------------------------------------------------------------------------

    def respond(self, token: Token, value: Any) -> None:
        """Answer who waits, once everything said so far is durable."""
        self._effects.append(Respond(token, value))

    def send(self, to: NodeId, method: Method, request: Request, *, early: bool = False) -> Send:
        """Send to a peer; `early` when the message promises nothing that is not durable yet."""
        round_ = self.leadership.round if self.leadership else 0
        message = Send(to, method, request, round_, self.now)
        (self._early if early else self._effects).append(message)
        return message

    def trace(self, event: str, **fields: Any) -> None:
        """Note something for the trace."""
        if self.tracing:
            self._traces.append(Trace(event, {"term": self.term, **fields}))

    def save_hard_state(self, term: int, voted_for: NodeId | None) -> None:
        """Change term or vote; durable before anything that follows leaves."""
        self.hard_state = self._new_hard_state = HardState(term, voted_for, self.hard_state.removed_at)

    def append_entry(self, entry: Entry) -> None:
        """Append to the log, in memory now and on disk before anything that follows leaves."""
        self.log.append(entry)
        self._new_entries.append(entry)

    def truncate_log(self, start: int) -> None:
        """Drop entries from `start` on that contradict the leader's; never a committed one."""
        self.refuse_to_forget_committed(start)
        self.trace("truncate", index=start, last=self.log.last_index)
        self.log.truncate(start)
        self.durable_index = min(self.durable_index, start - 1)
        self._new_entries = [entry for entry in self._new_entries if entry.index < start]
        if self._truncate_from is None or start < self._truncate_from:
            self._truncate_from = start

    def compact_log(self, index: int) -> None:
        """Forget entries up to and with `index`, which the snapshot includes and the log has."""
        if index > self.log.base.index:
            self.log.compact(index)
            self.log_begins_after_snapshot()

    def log_begins_after_snapshot(self) -> None:
        """Have the log's new base written; what it forgets need not be written any more."""
        self._compact_to = self.log.base
        self._new_entries = [entry for entry in self._new_entries if entry.index > self.log.base.index]

    def refuse_to_forget_committed(self, start: int) -> None:
        """Committed entries are for ever: to be told otherwise means that the cluster is broken beyond this node.

        Raises:
            LogContradiction: entry `start` is committed.
        """
        if start <= self.commit_index:
            raise LogContradiction(
                f"leader {self.leader_id} of term {self.term} contradicts entry {start}, but entries up to "
                f"{self.commit_index} are committed"
            )

    def take_persist(self) -> Persist | None:
        """What has to be written since the last call."""
        if (
            not self._new_entries
            and self._new_hard_state is None
            and self._truncate_from is None
            and self._compact_to is None
            and self._install is None
        ):
            return None
        appends_only = self._truncate_from is None and self._install is None
        led_durably = self.leadership is not None and self.hard_state == self.durable_hard_state
        self.writes_as_leader = led_durably and appends_only
        persist = Persist(
            self._new_hard_state, self._truncate_from, tuple(self._new_entries), self._compact_to, self._install
        )
        self._new_hard_state, self._truncate_from, self._new_entries = None, None, []
        self._compact_to, self._install = None, None
        self.writing_since = self.now
        return persist

    def change_state(self, state: State) -> None:
        """Become something else; what a leader owed is settled on the way out."""
        if state is self.state:
            return
        left = self.leadership
        self.state = state
        self.leadership = None
        self.trace_role()
        if left is not None:
            self.settle_after_leadership(left)

    def trace_role(self) -> None:
        """Note role, term and leader, if they are not what was noted last."""
        role = (self.state.value, self.term, self.leader_id)
        if role != self._traced_role:
            self._traced_role = role
            self.trace("role", role=self.state.value, leader=self.leader_id, **self.proof_of_election())

    def proof_of_election(self) -> dict[str, Any]:
        """For the trace: by whose votes this node leads, and with what log it begins; nothing where it does not."""
        if self.state is not State.LEADER:
            return {}
        last = self.log.last_index
        voters = self.membership.voter_sets()
        return {"votes": sorted(self.votes), "voters": voters, "last": last, "hash": self.log.prefix_hash(last)}

    def settle_after_leadership(self, left: Leadership) -> None:
        """Tell those who wait that their leader was deposed: writes are unknown, reads had no effect."""
        for token in left.writes.values():
            self.respond(token, LeadershipLost("the leader was deposed before the write was committed"))
        for token in left.reads_in_round + left.reads_waiting:
            self.respond(token, ReadForwardToLeader(self.leader_id))
        asked = [join.token for join in left.joins] + ([left.change.token] if left.change else [])
        for token in asked:
            self.respond(token, ConfigChangeUnknown("the leader was deposed before the membership was changed"))
        if left.transfer is not None:
            self.respond(left.transfer.token, None)  # it was to lead no more, and does not

    def become_follower(self, term: int, leader: NodeId | None) -> None:
        """Follow `leader`, or nobody yet, in `term`, which is at least the current one."""
        if term > self.term:
            self.save_hard_state(term, None)
            self.leader_id = None
            self.leader_heard = None
        self.leader_id = leader if leader is not None else self.leader_id
        if leader is None and self.leader_id == self.id:
            self.leader_id = None
        votes = self.may_stand()
        if not votes and self.state is not State.NON_VOTER and self.log.membership_index <= self.commit_index:
            removed_at = self.log.membership_index
            self.hard_state = self._new_hard_state = HardState(self.term, self.hard_state.voted_for, removed_at)
        self.change_state(State.FOLLOWER if votes else State.NON_VOTER)
        self.trace_role()

    def reset_election_deadline(self) -> None:
        """Draw a new election timeout (Raft paper, section 5.2), from now."""
        least, most = self.config.election_timeout_min, self.config.election_timeout_max
        self.election_deadline = self.now + int((least + (most - least) * self.random.random()) * MILLISECOND)

    def follow(self, term: int, leader: NodeId) -> None:
        """A request of a leader of `term`, which is at least the current one, came in: it lives."""
        if term > self.term or self.leader_id != leader or self.state not in (State.FOLLOWER, State.NON_VOTER):
            self.become_follower(term, leader)
        self.leader_heard = self.now
        self.reset_election_deadline()

    def heard_from_leader(self) -> bool:
        """A leader of this term was heard from within the least election timeout (Raft thesis, 4.2.3)."""
        if self.state is State.LEADER:
            return True
        heard = self.leader_heard
        return heard is not None and self.now - heard < self.config.election_timeout_min * MILLISECOND

    def metrics(self, applied: int | None = None) -> RaftMetrics:
        """What this node is and knows; `applied` is how far the driver has come with what it was told to apply."""
        return RaftMetrics(
            self.id,
            self.state,
            self.term,
            self.log.last_index,
            self.commit_index,
            self.last_applied if applied is None else applied,
            self.leader_id,
            self.membership,
        )
