"""Whole Raft nodes in one process: the facade, real stores, and a network that is a method call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Config,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    NodeId,
    Raft,
    RaftMetrics,
    RaftNetworkError,
    RaftStorage,
    TimeoutNowRequest,
    TimeoutNowResponse,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.storage import MemorySnapshots, MemoryStore, NodeStorage


class ListMachine:
    """A state machine that keeps every command, and answers how many it has."""

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def apply(self, command: Mapping[str, Any]) -> int:
        self.commands.append(command)
        return len(self.commands)

    def capture(self) -> Callable[[], Iterator[bytes]]:
        commands = list(self.commands)
        return lambda: map(msgspec.msgpack.encode, commands)

    def load(self, pieces: Iterator[bytes]) -> Callable[[], None]:
        commands = [msgspec.msgpack.decode(piece) for piece in pieces]

        def begin() -> None:
            self.commands = commands

        return begin


class Wires:
    """Connects the nodes of one process. `cut` holds the names of those that hear nobody and are not heard."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Raft] = {}
        self.cut: set[NodeId] = set()

    def of(self, sender: NodeId) -> Wire:
        return Wire(self, sender)

    def reach(self, sender: NodeId, target: NodeId) -> Raft:
        if target not in self.nodes or {sender, target} & self.cut:
            raise RaftNetworkError(f"{target} cannot be reached from {sender}")
        return self.nodes[target]


class Wire:
    """One node's end of the wires; implements `RaftNetwork`."""

    def __init__(self, wires: Wires, sender: NodeId) -> None:
        self.wires, self.sender = wires, sender

    async def append_entries(self, target: NodeId, rpc: AppendEntriesRequest) -> AppendEntriesResponse:
        return await self.wires.reach(self.sender, target).append_entries(rpc)

    async def vote(self, target: NodeId, rpc: VoteRequest) -> VoteResponse:
        return await self.wires.reach(self.sender, target).vote(rpc)

    async def pre_vote(self, target: NodeId, rpc: VoteRequest) -> VoteResponse:
        return await self.wires.reach(self.sender, target).pre_vote(rpc)

    async def install_snapshot(self, target: NodeId, rpc: InstallSnapshotRequest) -> InstallSnapshotResponse:
        return await self.wires.reach(self.sender, target).install_snapshot(rpc)

    async def timeout_now(self, target: NodeId, rpc: TimeoutNowRequest) -> TimeoutNowResponse:
        return await self.wires.reach(self.sender, target).timeout_now(rpc)


class Nodes(AsyncExitStack):
    """Nodes n1 to nN, shut down on the way out.

    Parameters:
        size: how many.
        machine: makes the state machine of each.
        options: fields of `Config`.
    """

    def __init__(self, size: int, *, machine: Callable[[], ListMachine] = ListMachine, **options: Any) -> None:
        super().__init__()
        self._make_machine = machine
        self.config = Config("test", **options)
        self.wires = Wires()
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.machines: dict[NodeId, ListMachine] = {}
        self.stores: dict[NodeId, MemoryStore] = {name: MemoryStore() for name in self.names}
        self.snapshots: dict[NodeId, MemorySnapshots] = {name: MemorySnapshots() for name in self.names}

    async def __aenter__(self) -> Nodes:
        for name in self.names:
            self.start(name)
        return self

    def storage(self, name: NodeId) -> NodeStorage:
        """What a node had stored, with a new state machine."""
        self.machines[name] = self._make_machine()
        return NodeStorage(self.stores[name], self.machines[name], self.snapshots[name])

    def start(self, name: NodeId, wrap: Callable[[RaftStorage], RaftStorage] = lambda storage: storage) -> Raft:
        """Start a node, or start it again on what it had stored."""
        raft = Raft(name, self.config, self.wires.of(name), wrap(self.storage(name)))
        self.wires.nodes[name] = raft
        self.push_async_callback(raft.shutdown)
        return raft

    def __getitem__(self, name: NodeId) -> Raft:
        return self.wires.nodes[name]

    async def form(self) -> Raft:
        """Make them a cluster; returns the leader, once everyone follows it."""
        await self[self.names[0]].initialize(set(self.names))
        return await self.leader()

    async def leader(self) -> Raft:
        """The leader, once everyone who is not cut off follows it."""
        heard = [self[name] for name in self.names if name not in self.wires.cut and not self[name].closing]

        def agreed() -> NodeId | None:
            leaders = {raft.metrics().current.current_leader for raft in heard}
            leader = leaders.pop()
            led = leader is not None and not leaders and self[leader].metrics().current.state == "leader"
            return leader if led and leader not in self.wires.cut else None

        while (leader := agreed()) is None:
            changes = [asyncio.ensure_future(raft.metrics().changed()) for raft in heard]
            await asyncio.wait(changes, return_when=asyncio.FIRST_COMPLETED)
            for change in changes:
                change.cancel()
        return self[leader]

    async def applied(self, index: int) -> None:
        """Wait until every node has applied the entry at `index`."""
        for name in self.names:
            await self[name].metrics().wait_for(lambda metrics: metrics.last_applied >= index)

    async def wait_for(self, name: NodeId, condition: Callable[[RaftMetrics], bool]) -> RaftMetrics:
        return await self[name].metrics().wait_for(condition)
