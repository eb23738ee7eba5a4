"""The loop around the core: takes events in, has the storage persist, sends and answers.

Theory of operation
-------------------
A *turn* drains what came in, steps the core through it, and does what `ready` says: sends early messages, hands
`persist` to the storage's thread. While the disk works more comes in; when it is done, what depended on it is sent,
applied and answered, and the next turn takes all that has gathered: one sync serves many (group commit). What depends
on no write goes on meanwhile: heartbeats, both ways (keep_alive.py), and a leader's turns, as far as they need no disk
(while_writing.py). Whatever the storage raises ends the node; nothing that depended on the failed write has left.

Turns are callbacks of the event loop, not a task, and a message costs neither a task nor a timer of its own: at some
thousand operations per second these were what the time went into (docs/benchmarks.md). Only turns touch the core.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import Any

from raftbed.nodes.raft.admission import Admission
from raftbed.nodes.raft.calls import Calls
from raftbed.nodes.raft.config import Config
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.errors import (
    LeadershipLost,
    RaftStorageError,
    ShuttingDown,
    because_of,
    in_words,
    was_foreseen,
)
from raftbed.nodes.raft.events import (
    Apply,
    Durable,
    Effect,
    Event,
    Ready,
    Received,
    Respond,
    Restore,
    Send,
    Trace,
)
from raftbed.nodes.raft.interfaces import RaftNetwork, RaftStorage
from raftbed.nodes.raft.messages import MembershipConfig, NodeId, SnapshotMeta
from raftbed.nodes.raft.peer_failures import PeerFailures
from raftbed.nodes.raft.progress import Rate
from raftbed.nodes.raft.snapshot_work import SnapshotWork
from raftbed.nodes.raft.state import RaftMetrics, State
from raftbed.nodes.raft.storage_thread import StorageThread, Workers
from raftbed.nodes.raft.watch import MetricsWatch

_log = logging.getLogger("raftbed.nodes")

Tracer = Callable[[Sequence[Trace]], None]
"""Takes what happened in a round of the loop, in order, before anything of that round leaves the node."""


@dataclass(frozen=True, slots=True)
class ClientWriteResponse:
    """A committed and applied write.

    Attributes:
        index: of its entry.
        term: of its entry.
        data: what the state machine answered.
    """

    index: int
    term: int
    data: Any


class Driver:
    """Runs the core of one node. Parameters are those of :class:`raftbed.nodes.raft.Raft`.

    Attributes:
        ended: done once everything has come to its end; never an exception.
        failure: why the node came to an end by itself, or None.
        closing: it is coming to an end, or has.
        watch: the metrics.
        admission: whether clients may ask more.
    """

    def __init__(
        self,
        node: NodeId,
        config: Config,
        network: RaftNetwork,
        storage: RaftStorage,
        clock: Callable[[], int],
        random: Random,
        tracer: Tracer | None,
        on_membership: Callable[[MembershipConfig], None] | None = None,
        workers: Workers = StorageThread,
        make_core: Callable[..., Core] = Core,
    ) -> None:
        self._node = node
        self._config = config
        self._network = network
        self._storage = storage
        self._clock = clock
        self._random = random
        self._tracer = tracer
        self._on_membership = on_membership
        self._membership = MembershipConfig(())  # that was told last; this one, of a pristine node, tells nothing
        self._loop = asyncio.get_running_loop()
        self._make_core = make_core
        self._core: Core | None = None  # until the storage has recovered
        self._inbox: list[Event] = []
        self.admission = Admission(config)  # to the inbox, of what clients ask
        self._turn_is_due = False
        self._writing = False
        self._applied = 0  # the last entry that the state machine has seen; the core is ahead while the disk works
        self._ending = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0
        self._asked: set[asyncio.Future[Any]] = set()
        self._disk = workers(self._loop, f"raft-storage-{node}")
        failures = PeerFailures(node)
        self._calls = Calls(network, config.election_timeout_min / 1000, failures, self.push)
        self._snapshots = SnapshotWork(
            f"raft-snapshots-{node}", config, network, storage, self.push, self._end, self.snapshot, failures, workers
        )
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.failure: Exception | None = None
        self.closing = False
        self.watch = MetricsWatch(RaftMetrics(node, State.NON_VOTER))
        self._disk.call(storage.get_initial_state, (), self._recovered)

    # -- what others call ---------------------------------------------------------------------------------------------

    def ask(self, make: Callable[[asyncio.Future[Any]], Event]) -> asyncio.Future[Any]:
        """Have the core take an event with a token; the future brings what it answers.

        Raises:
            ShuttingDown: the node is.
        """
        if self.closing:
            raise ShuttingDown from self.failure
        token: asyncio.Future[Any] = self._loop.create_future()
        self._asked.add(token)
        self.push(make(token))
        return token

    def tell(self, event: Event) -> None:
        """Have the core take an event that nobody waits for.

        Raises:
            ShuttingDown: the node is.
        """
        if self.closing:
            raise ShuttingDown from self.failure
        self.push(event)

    def streams(self) -> dict[NodeId, tuple[Rate, int]]:
        """Of a leader's streams: how each does, and up to which entry its peer is known to have the log."""
        core = self._core
        if core is None or core.leadership is None:
            return {}
        last, line = core.log.last_index, self._config.max_payload_entries
        return {
            peer: (stream.rate(last, line), stream.match_index) for peer, stream in core.leadership.progress.items()
        }

    def snapshot(self) -> SnapshotMeta | None:
        """The node's snapshot."""
        return self._core.snapshot if self._core is not None else None

    def push(self, event: Event) -> None:
        """Have the core take an event in the next turn."""
        core = self._core
        if self._writing and core is not None and isinstance(event, Received):
            answer = core.hear(event, self._clock())
            if answer is not None:
                self._settle(event.token, answer)
                return
        self._inbox.append(event)
        if self._turn_is_due or core is None or (self._writing and not core.goes_on_while_writing):
            return
        self._turn_is_due = True
        self._loop.call_soon(self._turn)

    def close(self) -> None:
        """Come to an end, after the write that is under way."""
        if self.closing:
            return
        self.closing = True
        if not self._writing and self._core is not None:
            self._end()

    # -- turns --------------------------------------------------------------------------------------------------------

    def _recovered(self, stored: Any, error: Exception | None) -> None:
        if error is not None or self.closing:
            self._end(error and _storage_error(error))
            return
        try:
            self._core = core = self._make_core(
                self._node,
                self._config,
                self._random,
                hard_state=stored.hard_state,
                entries=stored.entries,
                now=self._clock(),
                base=stored.base,
                snapshot=stored.snapshot,
            )
            self._applied = core.last_applied
            core.tracing = self._tracer is not None
            core.start()
        except Exception as failure:
            self._end(failure)
            return
        self._turn()

    def _turn(self) -> None:
        self._turn_is_due = False
        core = self._core
        if self._ending or core is None or (self._writing and self.closing):
            return
        try:
            now = self._clock()
            inbox, self._inbox = self._inbox, []
            self.admission.recount(())
            if self._writing:
                self._turn_while_writing(core, inbox, now)
                return
            for event in inbox:
                core.step(event, now)
            core.tick(now)  # after what came in: a heartbeat that waited here is no reason to stand for election
            self._work(core)
        except Exception as error:  # whatever it is, this node cannot go on
            self._end(error)

    def _turn_while_writing(self, core: Core, inbox: Sequence[Event], now: int) -> None:
        self._inbox = core.step_while_writing(inbox, now)
        self.admission.recount(self._inbox)
        ready = core.ready_while_writing()
        if ready is not None:
            self._begin(ready)
            self._finish(ready.effects)
            self.watch.refresh(self._look)

    def _work(self, core: Core) -> None:
        while (ready := core.ready()) is not None:
            self._begin(ready)
            if ready.independent:
                self._finish(ready.effects)
            if self._writing:
                break
        self._set_timer(core)
        self.watch.refresh(self._look)

    def _look(self) -> RaftMetrics:
        assert self._core is not None
        return self._core.metrics(self._applied)

    def _begin(self, ready: Ready) -> None:
        if self._tracer is not None and ready.traces:
            self._tracer(ready.traces)
        if self._on_membership is not None:
            self._tell_membership(self._on_membership)
        for message in ready.early:
            self._send(message)
        if ready.persist is not None:
            persist = ready.persist
            self._writing = True
            arguments = (persist.hard_state, persist.truncate_from, persist.entries)
            write: Callable[..., None] = self._storage.persist
            if persist.compact_to is not None:
                write = partial(write, compact_to=persist.compact_to, install=persist.install)
            self._disk.call(write, arguments, lambda _, error: self._persisted(ready, error))

    def _tell_membership(self, on_membership: Callable[[MembershipConfig], None]) -> None:
        assert self._core is not None
        membership = self._core.membership
        if membership != self._membership:
            self._membership = membership
            on_membership(membership)

    def _persisted(self, ready: Ready, error: Exception | None) -> None:
        self._writing = False
        core = self._core
        if self._ending:
            return  # for another reason, while the disk worked: nothing may leave any more
        assert core is not None
        if error is not None:
            self._end(_storage_error(error))
            return
        try:
            core.step(Durable(), self._clock())
            if not ready.independent:
                self._finish(ready.effects)
            self._snapshots.persisted(ready.persist)
        except Exception as failure:
            self._end(failure)
            return
        if self.closing:
            self._end()
        else:
            self._turn()

    def _finish(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Respond):
                self._settle(effect.token, effect.value)
            elif isinstance(effect, Send):
                self._send(effect)
            elif isinstance(effect, Apply):
                self._apply(effect)
            else:
                self._snapshots.do(effect)
                self._applied = effect.snapshot.index if isinstance(effect, Restore) else self._applied

    def _set_timer(self, core: Core) -> None:
        """Have a turn taken at the core's deadline. A timer that fires too early only looks, and is set again."""
        deadline = core.deadline_while_writing if self._writing else core.deadline
        if deadline is None or (self._timer is not None and self._timer_at <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._loop.call_later(max(0, deadline - self._clock()) / 1e9, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        core = self._core
        assert core is not None
        if self._writing:
            self._beat(core)
        elif core.deadline is not None and core.deadline > self._clock():
            self._set_timer(core)
        else:
            self._turn()

    def _beat(self, core: Core) -> None:
        """Let peers hear from this node though its disk works."""
        try:
            for message in core.beat(self._clock()):
                self._send(message)
        except Exception as error:
            self._end(error)
        else:
            self._set_timer(core)  # where none is due before the disk is done, the turn after it sets the timer

    def _apply(self, effect: Apply) -> None:
        try:
            answers = self._storage.apply_to_state_machine(effect.entries)
        except Exception as error:
            raise RaftStorageError(f"the state machine failed: {in_words(error)}") from error
        self._applied = effect.entries[-1].index
        if not effect.tokens:
            return
        for entry, answer in zip(effect.entries, answers, strict=True):
            token = effect.tokens.get(entry.index)
            if token is not None:
                self._settle(token, ClientWriteResponse(entry.index, entry.term, answer))

    def _settle(self, token: asyncio.Future[Any], value: Any) -> None:
        """Answer who waits, if anyone still does."""
        self._asked.discard(token)
        if token.done():
            return
        if isinstance(value, Exception):
            token.set_exception(value)
            token.exception()  # mark as seen: whoever asked may have gone away
        else:
            token.set_result(value)

    def _send(self, message: Send) -> None:
        if message.method == "install_snapshot":
            self._snapshots.send(message)
        else:
            self._calls.send(message)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _end(self, failure: Exception | None = None) -> None:
        if self._ending:
            return
        self._ending = self.closing = True
        self.failure = failure
        if failure is not None:
            where = None if was_foreseen(failure.__cause__ or failure) else failure
            _log.critical("node %s stops: %s", self._node, in_words(failure), exc_info=where)
        if self._timer is not None:
            self._timer.cancel()
        self._calls.end()
        core = self._core
        if core is not None:
            owed = core.leadership.writes.values() if core.leadership else ()
            for token in owed:
                lost = LeadershipLost("the leader shut down before the write was committed")
                self._settle(token, because_of(failure, lost))
            core.change_state(State.SHUTDOWN)
            self.watch.publish(replace(core.metrics(self._applied), current_leader=None))
        else:
            self.watch.publish(RaftMetrics(self._node, State.SHUTDOWN))
        self.watch.close(failure)
        for token in list(self._asked):
            self._settle(token, because_of(failure, ShuttingDown()))
        self._snapshots.end(self._close_storage)

    def _close_storage(self) -> None:
        self._disk.call(self._storage.close, (), self._closed)
        self._disk.end()

    def _closed(self, _result: Any, error: Exception | None) -> None:
        if error is not None:
            _log.warning("node %s: its storage could not be closed: %s", self._node, in_words(error))
        if not self.ended.done():
            self.ended.set_result(None)


def _storage_error(error: Exception) -> Exception:
    return because_of(error, RaftStorageError(in_words(error)))
