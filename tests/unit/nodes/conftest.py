"""A node over HTTP, for the tests of what it answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from tests_served_node import PEERS, Gate, Node

from raftbed.nodes.peers import PeerNetwork
from raftbed.nodes.raft import AppendEntriesRequest, Blank, Config, Entry, Raft
from raftbed.nodes.server import Server
from raftbed.nodes.state_machine import KeyValueStateMachine


@pytest.fixture
async def pristine() -> AsyncIterator[Node]:
    machine = KeyValueStateMachine()
    network = PeerNetwork("here", PEERS, timeout=1.0)
    disk = Gate(machine)
    raft = Raft("n1", Config("here"), network, disk)
    server = Server(raft, machine, cluster="here", peers=PEERS)
    port = await server.listen("127.0.0.1", 0)
    async with ClientSession(f"http://127.0.0.1:{port}") as client:
        yield Node(raft, disk, machine, port, client)
    disk.free.set()
    await raft.shutdown()
    await server.close()
    await network.close()


@pytest.fixture
async def node(pristine: Node) -> Node:
    """A cluster of one, which leads, with the value 1 at key "k"."""
    await pristine.ask("POST", "/admin/initialize", json={"members": ["n1"]})
    await pristine.raft.metrics().wait_for(lambda metrics: metrics.last_applied == 1)
    await pristine.put("k", 1)
    return pristine


@pytest.fixture
async def follower(pristine: Node) -> Node:
    """A node that has heard from leader n2, of term 3."""
    await pristine.peer("append_entries", AppendEntriesRequest(3, "n2", 0, 0, (Entry(1, 3, Blank()),), 1))
    return pristine
