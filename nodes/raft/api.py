"""`Raft`: what an application sees of a node, in the shape of Rust's ``async_raft::raft::Raft`` (0.6.1).

Everything here is a question put to the core; the loop around the core is in driver.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Any

from raftbed.nodes.raft.commands import as_carried
from raftbed.nodes.raft.config import Config
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.driver import ClientWriteResponse, Driver, Tracer
from raftbed.nodes.raft.events import ClientRead, ClientWrite, Method, Received
from raftbed.nodes.raft.interfaces import RaftNetwork, RaftStorage
from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    MembershipConfig,
    NodeId,
    Request,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.operators import Operators, checked_id
from raftbed.nodes.raft.storage_thread import StorageThread, Workers
from raftbed.nodes.raft.watch import MetricsWatch


class Raft(Operators):
    """One node of a Raft cluster. Make it inside a running event loop; it starts at once.

    Parameters:
        id: this node's, known to its peers.
        config: how it behaves.
        network: carries its requests to peers.
        storage: its log and state machine; closed at shutdown.
        clock: nanoseconds; monotonic.
        random: draws election timeouts.
        tracer: takes what happens, for a trace.
        on_membership: is told each membership as it comes into force, before anything is sent by it: it has the
            addresses of nodes that the network may not know yet. After a start that is first the one that was stored;
            a pristine node has none to tell of. What it raises stops the node.
        workers: make what the storage's blocking calls are made in: threads, unless told otherwise.
        make_core: makes the core, with the parameters of `Core`; a simulator brings one that does rare things.

    Raises:
        TypeError: `id` is no text.
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
        on_membership: Callable[[MembershipConfig], None] | None = None,
        workers: Workers = StorageThread,
        make_core: Callable[..., Core] = Core,
    ) -> None:
        self.id = id = checked_id("id", id)
        self.config = config
        draws = random or Random()
        self._driver = Driver(id, config, network, storage, clock, draws, tracer, on_membership, workers, make_core)

    # -- RPC entry points -----------------------------------------------------------------------------------------

    async def append_entries(self, rpc: AppendEntriesRequest) -> AppendEntriesResponse:
        """Take a leader's entries or heartbeat; answers when what it holds is durable.

        Raises:
            ShuttingDown: the node is.
        """
        response: AppendEntriesResponse = await self.receive("append_entries", rpc)
        return response

    async def vote(self, rpc: VoteRequest) -> VoteResponse:
        """Vote, or not; a vote that is given is durable.

        Raises:
            ShuttingDown: the node is.
        """
        response: VoteResponse = await self.receive("vote", rpc)
        return response

    async def pre_vote(self, rpc: VoteRequest) -> VoteResponse:
        """Promise a vote, or not; nothing is persisted (Raft thesis 9.6).

        Raises:
            ShuttingDown: the node is.
        """
        response: VoteResponse = await self.receive("pre_vote", rpc)
        return response

    async def install_snapshot(self, rpc: InstallSnapshotRequest) -> InstallSnapshotResponse:
        """Take a piece of a leader's snapshot; with the last one, the state machine becomes what it says.

        Raises:
            ShuttingDown: the node is.
        """
        response: InstallSnapshotResponse = await self.receive("install_snapshot", rpc)
        return response

    async def timeout_now(self, rpc: TimeoutNowRequest) -> TimeoutNowResponse:
        """Stand for election at once, because the leader wants this node to lead (Raft thesis 3.10).

        Raises:
            ShuttingDown: the node is.
        """
        response: TimeoutNowResponse = await self.receive("timeout_now", rpc)
        return response

    def receive(self, method: Method, rpc: Request) -> asyncio.Future[Any]:
        """What the entry point `method` does, for a transport that does not want a task for each message.

        Raises:
            ShuttingDown: the node is; the future may raise it, too.
        """
        return self._driver.ask(lambda token: Received(token, method, rpc))

    # -- the application's side -----------------------------------------------------------------------------------

    async def current_leader(self) -> NodeId | None:
        """Who leads, as far as this node knows: good for routing, never proof against a stale read.

        None when it knows of nobody, and once it has shut down.
        """
        return self._driver.watch.current.current_leader

    async def client_read(self) -> None:
        """Return once this node has proved that it still leads, and its state machine has caught up with that moment.

        Does not read: the application does, after it. Concurrent reads share one round of proof.

        Raises:
            ReadForwardToLeader: it does not lead, or could not prove it.
            ReadOverloaded: too many reads wait already.
            ShuttingDown: the node is.
        """
        await self.begin_read()

    async def client_write(self, data: Any) -> ClientWriteResponse:
        """Append, commit and apply `data`, which msgpack can carry; returns what the state machine answered.

        It is copied, and every state machine is given what msgpack makes of it: a list for a tuple, say.

        Raises:
            TypeError, OverflowError, ValueError: `data` is nothing that msgpack can carry, or is nested deeper than
                `MAX_DEPTH` levels.
            WriteForwardToLeader: this node does not lead; the write was not appended, and carries the payload back.
            Overloaded: too much is uncommitted, or waits for the disk; the write was not appended.
            LeadershipLost: nobody knows what becomes of the write.
            ShuttingDown: the node is; where it was not before the call, nobody knows either.
        """
        return await self.begin_write(data)

    def begin_read(self) -> asyncio.Future[Any]:
        """Begin a `client_read`; the future ends as it would."""
        if not self._driver.closing:
            self._driver.admission.read()
        return self._driver.ask(ClientRead)

    def begin_write(self, data: Any) -> asyncio.Future[ClientWriteResponse]:
        """Begin a `client_write`; the future ends as it would. Whoever gives up on it has still written."""
        command, size = as_carried(data)  # here, where what is wrong with it hurts only the caller
        if not self._driver.closing:
            self._driver.admission.write(size)
        return self._driver.ask(lambda token: ClientWrite(token, command, data, size))

    def metrics(self) -> MetricsWatch:
        """The node's metrics, to look at, which is possible after a shutdown, too, or to watch."""
        return self._driver.watch

    async def shutdown(self) -> None:
        """Stop, and wait until everything has come to its end. Calling it again does the same."""
        self._driver.close()
        await asyncio.shield(self._driver.ended)

    async def wait_closed(self) -> None:
        """Wait until the node has shut down, by itself or because it was asked to.

        What it raises was logged when the node stopped, and is the `__cause__` of every `ShuttingDown` from then on.

        Raises:
            RaftStorageError: its storage or its state machine failed; `__cause__` is what was raised there.
            LogContradiction: a leader contradicted what is committed.
            Exception: whatever `on_membership` or `tracer` raised; anything else is a bug of this library.
        """
        await asyncio.shield(self._driver.ended)
        if self._driver.failure is not None:
            raise self._driver.failure

    @property
    def closing(self) -> bool:
        """The node is shutting down, or has."""
        return self._driver.closing


__all__ = ["ClientWriteResponse", "MetricsWatch", "Raft", "Tracer"]
