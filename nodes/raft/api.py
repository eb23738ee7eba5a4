"""`Raft`: the core with a loop around it, in the shape of Rust's ``async_raft::raft::Raft`` (0.6.1).

Theory of operation
-------------------
One task owns the core. It drains what came in, steps it, and does what `ready` says: sends early messages, has the
storage persist in a worker thread, applies committed entries, answers. While the disk works, more comes in and is
taken together in the next round, so that one sync serves many (group commit). Whatever the storage raises shuts the
node down; nothing that depended on the failed write has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeVar

import msgspec

from raftbed.nodes.raft.config import MILLISECOND, Config
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.errors import LeadershipLost, RaftError, RaftStorageError, ShuttingDown
from raftbed.nodes.raft.events import (
    Answered,
    Apply,
    ClientRead,
    ClientWrite,
    Durable,
    Elect,
    Event,
    Failed,
    Initialize,
    Method,
    Ready,
    Received,
    Respond,
    Send,
    Trace,
)
from raftbed.nodes.raft.interfaces import RaftNetwork, RaftStorage
from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    NodeId,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.state import RaftMetrics, State

Tracer = Callable[[Sequence[Trace]], None]
"""Takes what happened in a round of the loop, in order, before anything of that round leaves the node."""
_T = TypeVar("_T")


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


class MetricsWatch:
    """The current metrics, and a way to wait for the next ones."""

    def __init__(self, initial: RaftMetrics) -> None:
        self._current = initial
        self._change = asyncio.Event()
        self._closed = False

    @property
    def current(self) -> RaftMetrics:
        """As of now."""
        return self._current

    def publish(self, metrics: RaftMetrics) -> None:
        """Replace the current metrics and wake who waits, if anything changed."""
        if metrics != self._current:
            self._current = metrics
            self._change.set()
            self._change = asyncio.Event()

    def close(self) -> None:
        """Nothing will change any more."""
        self._closed = True

    async def changed(self) -> RaftMetrics:
        """Wait for a change and return the metrics then.

        Raises:
            ShuttingDown: the node has shut down: there will be none.
        """
        if self._closed:
            raise ShuttingDown
        await self._change.wait()
        return self._current

    async def wait_for(self, condition: Callable[[RaftMetrics], bool]) -> RaftMetrics:
        """Wait until `condition` holds of the metrics, which may be at once.

        Raises:
            ShuttingDown: the node has shut down, and it does not hold.
        """
        while not condition(self._current):
            await self.changed()
        return self._current


class Raft:
    """One node of a Raft cluster. Make it inside a running event loop; it starts at once.

    Parameters:
        id: this node's, known to its peers.
        config: how it behaves.
        network: carries its requests to peers.
        storage: its log and state machine; closed at shutdown.
        clock: nanoseconds; monotonic.
        random: draws election timeouts.
        tracer: takes what happens, for a trace.
    """

    def __init__(
        self,
        id: NodeId,
        config: Config,
        network: RaftNetwork,
        storage: RaftStorage,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        random: Random | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self.id = id
        self.config = config
        self._network = network
        self._storage = storage
        self._clock = clock
        self._random = random or Random()
        self._tracer = tracer
        self._encode = msgspec.msgpack.Encoder().encode
        self._loop = asyncio.get_running_loop()
        self._inbox: list[Event] = []
        self._wakeup: asyncio.Future[None] | None = None
        self._closing = False
        self._failure: Exception | None = None
        self._waiting: set[asyncio.Future[Any]] = set()
        self._calls: set[asyncio.Task[None]] = set()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix=f"raft-storage-{id}")
        self._watch = MetricsWatch(RaftMetrics(id, State.NON_VOTER))
        self._task = self._loop.create_task(self._run(), name=f"raft-{id}")

    # -- RPC entry points -----------------------------------------------------------------------------------------

    async def append_entries(self, rpc: AppendEntriesRequest) -> AppendEntriesResponse:
        """Take a leader's entries or heartbeat; answers when what it holds is durable.

        Raises:
            ShuttingDown: the node is.
        """
        return await self._receive("append_entries", rpc, AppendEntriesResponse)

    async def vote(self, rpc: VoteRequest) -> VoteResponse:
        """Vote, or not; a vote that is given is durable.

        Raises:
            ShuttingDown: the node is.
        """
        return await self._receive("vote", rpc, VoteResponse)

    async def pre_vote(self, rpc: VoteRequest) -> VoteResponse:
        """Promise a vote, or not; nothing is persisted (Raft thesis 9.6).

        Raises:
            ShuttingDown: the node is.
        """
        return await self._receive("pre_vote", rpc, VoteResponse)

    # -- the application's side -----------------------------------------------------------------------------------

    async def current_leader(self) -> NodeId | None:
        """Who leads, as far as this node knows: good for routing, never proof against a stale read."""
        return self._watch.current.current_leader

    async def client_read(self) -> None:
        """Return once this node has proved that it still leads, and its state machine has caught up with that moment.

        Does not read: the application does, after it. Concurrent reads share one round of proof.

        Raises:
            ReadForwardToLeader: it does not lead, or could not prove it.
            ShuttingDown: the node is.
        """
        await self._ask(lambda token: ClientRead(token))

    async def client_write(self, data: Any) -> ClientWriteResponse:
        """Append, commit and apply `data`, which msgpack can carry; returns what the state machine answered.

        Raises:
            TypeError, OverflowError: `data` is nothing that msgpack can carry.
            WriteForwardToLeader: this node does not lead; the write was not appended, and carries the payload back.
            Overloaded: too much is uncommitted; the write was not appended.
            LeadershipLost: nobody knows what becomes of the write.
            ShuttingDown: the node is; where it was not before the call, nobody knows either.
        """
        self._encode(data)  # here, where it hurts only the caller
        response = await self._ask(lambda token: ClientWrite(token, data))
        assert isinstance(response, ClientWriteResponse)
        return response

    async def initialize(self, members: set[NodeId]) -> None:
        """Make this pristine node and `members` a cluster. Race-free when every member calls it.

        Raises:
            InitializeNotAllowed: the node is not pristine.
            ShuttingDown: the node is.
        """
        await self._ask(lambda token: Initialize(token, tuple(members)))

    def trigger_election(self) -> None:
        """Stand for election now. For tests and operators; peers that hear from a leader refuse."""
        self._push(Elect())

    def metrics(self) -> MetricsWatch:
        """The node's metrics, to look at or to watch."""
        return self._watch

    async def shutdown(self) -> None:
        """Stop, and wait until everything has come to its end. Calling it again does the same."""
        self._closing = True
        self._wake()
        await asyncio.shield(self._task)

    async def wait_closed(self) -> None:
        """Wait until the node has shut down, by itself or because it was asked to.

        Raises:
            RaftStorageError: its storage failed.
            LogContradiction: a leader contradicted what is committed.
        """
        await asyncio.shield(self._task)
        if self._failure is not None:
            raise self._failure

    @property
    def closing(self) -> bool:
        """The node is shutting down, or has."""
        return self._closing

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _receive(self, method: Method, rpc: AppendEntriesRequest | VoteRequest, kind: type[_T]) -> _T:
        response = await self._ask(lambda token: Received(token, method, rpc))
        assert isinstance(response, kind)
        return response

    async def _ask(self, make: Callable[[asyncio.Future[Any]], Event]) -> Any:
        if self._closing:
            raise ShuttingDown
        token: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.add(token)
        token.add_done_callback(self._waiting.discard)
        self._push(make(token))
        return await token

    def _push(self, event: Event) -> None:
        self._inbox.append(event)
        self._wake()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def _run(self) -> None:
        core: Core | None = None
        try:
            stored = await self._on_disk(self._storage.get_initial_state)
            core = Core(
                self.id,
                self.config,
                self._random,
                hard_state=stored.hard_state,
                entries=stored.entries,
                now=self._clock(),
            )
            core.start()
            await self._work(core)
            while not self._closing:
                await self._until_something_happens(core)
                now = self._clock()
                inbox, self._inbox = self._inbox, []
                for event in inbox:
                    core.step(event, now)
                core.tick(now)  # after what came in: a heartbeat that waited here is no reason to stand for election
                await self._work(core)
        except Exception as error:  # whatever it is, this node cannot go on; `wait_closed` tells
            self._failure = error
        finally:
            await self._close(core)

    async def _until_something_happens(self, core: Core) -> None:
        await asyncio.sleep(0)
        if self._inbox or self._closing:
            return
        self._wakeup = self._loop.create_future()
        deadline = core.deadline
        timer = None
        if deadline is not None:
            timer = self._loop.call_later(max(0, deadline - self._clock()) / 1e9, self._wake)
        try:
            await self._wakeup
        finally:
            if timer is not None:
                timer.cancel()

    async def _work(self, core: Core) -> None:
        while (ready := core.ready()) is not None:
            self._trace(ready)
            for message in ready.early:
                self._send(message)
            if ready.persist is not None:
                persist = ready.persist
                await self._on_disk(self._storage.persist, persist.hard_state, persist.truncate_from, persist.entries)
                core.step(Durable(), self._clock())
            for effect in ready.effects:
                if isinstance(effect, Respond):
                    _settle(effect.token, effect.value)
                elif isinstance(effect, Send):
                    self._send(effect)
                else:
                    self._apply(effect)
            self._watch.publish(core.metrics())

    async def _on_disk(self, call: Callable[..., _T], *arguments: Any) -> _T:
        try:
            return await self._loop.run_in_executor(self._disk, call, *arguments)
        except Exception as error:
            raise RaftStorageError(str(error)) from error

    def _apply(self, effect: Apply) -> None:
        try:
            answers = self._storage.apply_to_state_machine(effect.entries)
        except Exception as error:
            raise RaftStorageError(f"the state machine failed: {type(error).__name__}: {error}") from error
        for entry, answer in zip(effect.entries, answers, strict=True):
            token = effect.tokens.get(entry.index)
            if token is not None:
                _settle(token, ClientWriteResponse(entry.index, entry.term, answer))

    def _send(self, message: Send) -> None:
        task = self._loop.create_task(self._call(message))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _call(self, message: Send) -> None:
        event: Event
        try:
            async with asyncio.timeout(self.config.election_timeout_min * MILLISECOND / 1e9):
                response = await getattr(self._network, message.method)(message.to, message.request)
            event = Answered(message, response)
        except Exception:  # a network may fail in any way it likes; the core only needs to know that it did
            event = Failed(message)
        self._push(event)

    def _trace(self, ready: Ready) -> None:
        if self._tracer is not None and ready.traces:
            self._tracer(ready.traces)

    async def _close(self, core: Core | None) -> None:
        self._closing = True
        for call in self._calls:
            call.cancel()
        if core is not None:
            owed = core.leadership.writes.values() if core.leadership else ()
            for token in owed:
                _settle(token, LeadershipLost("the leader shut down before the write was committed"))
            core.change_state(State.SHUTDOWN)
            self._watch.publish(replace(core.metrics(), current_leader=None))
        else:
            self._watch.publish(RaftMetrics(self.id, State.SHUTDOWN))
        self._watch.close()
        for token in list(self._waiting):
            _settle(token, ShuttingDown())
        with contextlib.suppress(Exception):  # a storage that failed may fail again here; nothing depends on it
            await self._loop.run_in_executor(self._disk, self._storage.close)
        self._disk.shutdown(wait=False)


def _settle(token: asyncio.Future[Any], value: Any) -> None:
    """Answer who waits, if anyone still does."""
    if token.done():
        return
    if isinstance(value, Exception):
        token.set_exception(value)
        token.exception()  # mark as seen: whoever asked may have gone away
    else:
        token.set_result(value)


__all__ = ["ClientWriteResponse", "MetricsWatch", "Raft", "RaftError", "Tracer"]
