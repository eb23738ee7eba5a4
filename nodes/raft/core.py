"""The Raft core: events in, effects out; no clock, no sockets, no threads.

Theory of operation
-------------------
The driver calls `step` for each event and then `ready`, which says what to do, in order: send the early messages,
make `persist` durable, then do the effects. Nothing that depends on a write leaves before that write is on disk,
because whatever a step says stands behind the step's `Persist`. When the disk is done the driver steps `Durable` and
asks again, until there is nothing left to do. Before that it asks for keep-alives (keep_alive.py), and a leader goes on
with what depends on no write (while_writing.py); everything else waits. Many steps may go before one `ready`: their
writes become one write and one sync (group commit), their reads share one round, their entries one message per peer.

A leader's AppendEntries are the exception, and early: they promise nothing about the leader's own disk, because a
leader counts itself towards a quorum only for what is durable here (`durable_index`).

Time is an integer of nanoseconds that comes in with each call; `deadline` tells when to step next though nothing
happened. Randomness is a seeded generator that comes in once. The same calls give the same effects.

The parts: election.py (who leads), replication.py (what is in the log and when it is committed), snapshots.py (how the
log stays short), membership.py (who takes part), transfer.py (handing over), reads.py (linearizable reads),
keep_alive.py and while_writing.py (what goes on while the disk works); state.py holds what they share; log.py,
quorum.py and progress.py are the nouns.
"""

from __future__ import annotations

from collections.abc import Mapping

from raftbed.nodes.raft.election import Elections
from raftbed.nodes.raft.errors import InitializeNotAllowed, Overloaded, WriteForwardToLeader
from raftbed.nodes.raft.events import (
    AddNonVoter,
    Answered,
    ChangeMembership,
    ChunkStored,
    ClientRead,
    ClientWrite,
    Compact,
    Durable,
    Elect,
    Event,
    Failed,
    Heartbeat,
    Initialize,
    Ready,
    Received,
    RemoveNonVoter,
    SnapshotFailed,
    SnapshotTaken,
    Token,
    TransferLeadership,
)
from raftbed.nodes.raft.membership import Memberships
from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    MembershipConfig,
    NodeId,
    Normal,
    Request,
    TimeoutNowRequest,
    VoteResponse,
)
from raftbed.nodes.raft.state import State
from raftbed.nodes.raft.transfer import Transfers
from raftbed.nodes.raft.while_writing import WhileWriting


class Core(WhileWriting, Memberships, Elections, Transfers):
    """One node's Raft. Parameters are those of :class:`raftbed.nodes.raft.state.CoreState`."""

    def start(self) -> None:
        """Take up the role that the storage's content gives this node. Call once, before the first step."""
        self.trace(
            "boot",
            voted_for=self.hard_state.voted_for,
            last=self.log.last_index,
            last_term=self.log.last_term,
            snapshot=self.snapshot.index if self.snapshot else 0,
            hash=self.log.prefix_hash(self.log.last_index),
        )
        self.advance_commit(self.commit_index_at_start())
        if self.config.read_mode == "lease" and self.term:
            # A leader may rely on a lease that this node gave before it restarted: as a voter, even if its disk had not
            # come to the configuration that made it one.
            self.leader_heard = self.now
        if not self.may_stand():
            return
        self.state = State.FOLLOWER
        if self.membership.voters() == (self.id,) and not self.heard_from_leader():
            self.campaign()  # nobody else could object
        else:
            self.reset_election_deadline()

    def commit_index_at_start(self) -> int:
        """What is known to be committed when a node starts: the snapshot, and no more until a leader says so."""
        return self.commit_index

    @property
    def deadline(self) -> int | None:
        """When to call `tick`, in nanoseconds; None: never."""
        if self.leadership is not None:
            transfer, heartbeat = self.leadership.transfer, self.leadership.next_heartbeat
            return heartbeat if transfer is None else min(heartbeat, transfer.deadline)
        return None if self.state in (State.NON_VOTER, State.SHUTDOWN) else self.election_deadline

    def tick(self, now: int) -> None:
        """Time went by: do what is due."""
        self.now = now
        deadline = self.deadline
        if deadline is None or now < deadline:
            return
        self._idle = False
        if self.leadership is None:
            self.election_timeout()
            return
        self.transfer_timeout()
        if now >= self.leadership.next_heartbeat:
            self.heartbeat()

    def step(self, event: Event, now: int) -> None:
        """Take one event."""
        self.now = now
        self._idle = False
        if isinstance(event, Received):  # the most frequent come first; this is quicker than matching patterns
            self._received(event.token, event.method, event.request)
        elif isinstance(event, Answered):
            self._answered(event)
        elif isinstance(event, Durable):
            self._durable()
        elif isinstance(event, ClientRead):
            self.read_requested(event.token)
        elif isinstance(event, ClientWrite):
            self.write_requested(event.token, event.data, event.given)
        else:
            self._rare_event(event)

    def _rare_event(self, event: Event) -> None:
        match event:
            case Failed(sent):
                if sent.method in ("append_entries", "install_snapshot"):
                    self.append_failed(sent)
            case Initialize(token, members, addresses):
                self.initialize(token, members, addresses)
            case ChunkStored():
                self.chunk_stored(event)
            case _:
                self._operator_event(event)

    def _operator_event(self, event: Event) -> None:
        match event:
            case AddNonVoter(token, node, address):
                self.add_non_voter_requested(token, node, address)
            case RemoveNonVoter(token, node):
                self.remove_non_voter_requested(token, node)
            case ChangeMembership(token, members, addresses):
                self.change_requested(token, members, addresses)
            case TransferLeadership(token, target):
                self.transfer_requested(token, target)
            case Compact(token):
                self.snapshot_requested(token)
            case SnapshotTaken(snapshot):
                self.snapshot_taken(snapshot)
            case SnapshotFailed(index, reason, error):
                self.snapshot_failed(index, reason, error)
            case Elect():
                self._elect()
            case Heartbeat():
                if self.leadership is not None:
                    self.heartbeat()
            case _:
                raise AssertionError(f"no event: {event!r}")

    def _elect(self) -> None:
        leased = self.config.read_mode == "lease" and self.heard_from_leader()  # its leader relies on this very node
        if self.leadership is None and self.may_stand() and not leased:
            self.campaign()

    def ready(self) -> Ready | None:
        """What to do now; None: nothing. Everything it names is considered done."""
        if self._idle and not (self._early or self._effects or self._traces):
            return None  # drivers ask until there is nothing more to do; most often there is not
        self._idle = True
        if self.leadership is not None:
            self.drive_membership()
            self.drive_transfer()
            self.drive_clients()
        return self.take_ready(self.take_persist())

    # -- events ---------------------------------------------------------------------------------------------------

    def write_requested(self, token: Token, data: object, given: object) -> None:
        """The application wants `data` committed, a copy of what was given."""
        leadership = self.leadership
        if leadership is None:
            self.respond(token, WriteForwardToLeader(given, self.leader_id))
        elif leadership.transfer is not None:
            self.respond(token, WriteForwardToLeader(given, None))  # whoever leads next; this node is about not to
        elif self.is_overloaded():
            self.respond(token, Overloaded(f"{self.log.last_index - self.settled_index} entries are not committed yet"))
        else:
            leadership.writes[self.append_as_leader(Normal(data))] = token

    def is_overloaded(self) -> bool:
        """More is uncommitted, or not even on its own disk, than this leader wants to hold."""
        settled, last = self.settled_index, self.log.last_index
        if last == settled:
            return False
        size = self.log.bytes_through(last) - self.log.bytes_through(settled)
        return last - settled >= self.config.max_uncommitted_entries or size >= self.config.max_uncommitted_bytes

    @property
    def settled_index(self) -> int:
        """The last entry that is both committed and on this node's disk."""
        return min(self.commit_index, self.durable_index)

    def initialize(self, token: Token, members: tuple[NodeId, ...], addresses: Mapping[NodeId, str]) -> None:
        """Make a pristine node a member of a new cluster; race-free when every member does so."""
        if not self.is_pristine():
            self.respond(token, InitializeNotAllowed("the node has a log, a term or a role already"))
            return
        voters = tuple(sorted({*members, self.id}))
        known = tuple((node, addresses[node]) for node in voters if node in addresses)
        self.initial_membership = MembershipConfig(voters, addresses=known)
        self.change_state(State.FOLLOWER)
        self.election_timeout()
        self.respond(token, None)

    def _received(self, token: Token, method: str, request: Request) -> None:
        if isinstance(request, AppendEntriesRequest):
            self.append_requested(token, request)
        elif isinstance(request, InstallSnapshotRequest):
            self.install_requested(token, request)
        elif isinstance(request, TimeoutNowRequest):
            self.timeout_now_requested(token, request)
        elif method == "pre_vote":
            self.promise_requested(token, request)
        else:
            self.vote_requested(token, request)

    def _answered(self, event: Answered) -> None:
        response = event.response
        if isinstance(response, AppendEntriesResponse):
            self.append_answered(event.sent, response)
        elif isinstance(response, InstallSnapshotResponse):
            self.install_answered(event.sent, response)
        elif isinstance(response, VoteResponse):
            self.vote_answered(event.sent, response)
        # what comes of a `TimeoutNowResponse` will be seen in an election

    def _durable(self) -> None:
        self.writing_since = None
        if self.hard_state != self.durable_hard_state:
            before_write, self.durable_hard_state = self.durable_hard_state, self.hard_state
            told = (before_write.current_term, before_write.voted_for) == (self.term, self.hard_state.voted_for)
            if self.hard_state.voted_for is not None and not told:
                self.trace("vote", candidate=self.hard_state.voted_for)
        if self.state is State.CANDIDATE and self.won():
            self.become_leader()
        before = self.durable_index
        self.durable_index = self.log.last_index - len(self._new_entries)
        if self.durable_index != before:
            self.trace("durable", index=self.durable_index, hash=self.log.prefix_hash(self.durable_index))
        if self.leadership is not None:
            self.advance_commit_as_leader()
        self.learn_from_heard()
