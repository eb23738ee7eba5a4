"""A node that is asked over HTTP, and a gate before its disk."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import ClientSession

from raftbed.nodes.raft import Raft
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.storage import MemoryStore, NodeStorage
from raftbed.nodes.wire import CLUSTER_HEADER

PEERS = {"n1": "127.0.0.1:1", "n2": "127.0.0.1:2"}
OURS = {CLUSTER_HEADER: "here"}


class Gate(NodeStorage):
    """A storage whose writes wait while `free` is not set; `reached` tells that one has come."""

    def __init__(self, machine: KeyValueStateMachine) -> None:
        super().__init__(MemoryStore(), machine)
        self.free, self.reached = threading.Event(), threading.Event()
        self.free.set()

    def persist(self, *arguments: Any, **options: Any) -> None:
        self.reached.set()
        assert self.free.wait(30)
        super().persist(*arguments, **options)

    def close_gate(self) -> None:
        """Let no more writes through."""
        self.free.clear()
        self.reached.clear()

    async def has_write(self) -> None:
        """Wait until a write has come."""
        assert await asyncio.to_thread(self.reached.wait, 30)


@dataclass
class Node:
    """Node n1 of cluster "here", and a client of it."""

    raft: Raft
    disk: Gate
    machine: KeyValueStateMachine
    port: int
    client: ClientSession

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        """Status and JSON body of an answer."""
        async with self.client.request(method, path, **options) as response:
            return response.status, msgspec.json.decode(await response.read())

    async def put(self, key: str, value: Any, **session: Any) -> tuple[int, Any]:
        return await self.ask("POST", f"/kv/{key}/put", json={"value": value, **session})

    async def cas(self, key: str, old: Any, new: Any, **session: Any) -> tuple[int, Any]:
        return await self.ask("POST", f"/kv/{key}/cas", json={"old": old, "new": new, **session})

    async def get(self, key: str, **options: Any) -> tuple[int, Any]:
        return await self.ask("GET", f"/kv/{key}", **options)

    async def peer(self, method: str, message: Any, headers: dict[str, str] = OURS) -> tuple[int, bytes]:
        """What a peer is answered."""
        body = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
        async with self.client.post(f"/raft/{method}", data=body, headers=headers) as response:
            return response.status, await response.read()

    async def raw(self, data: bytes) -> bytes:
        """What comes back for bytes that are no request that a client library would make."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return answer

    async def state(self) -> tuple[Any, ...]:
        """Everything that bad input must not change."""
        metrics = self.raft.metrics().current
        return (
            metrics.state,
            metrics.current_term,
            metrics.last_log_index,
            metrics.current_leader,
            self.machine.read("k"),
        )
