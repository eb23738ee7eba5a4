"""Storages and networks with which a test holds the loop around the core where it wants it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Sequence
from typing import Any

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Config,
    Entry,
    HardState,
    Raft,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.storage import MemoryStore


class GatedStorage:
    """Keeps everything in memory; while the gate is shut, nothing becomes durable."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.gate = threading.Event()
        self.gate.set()
        self.begun: asyncio.Queue[int] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.applied: list[Entry] = []
        self.closed = False

    def get_initial_state(self) -> Any:
        return self.store.get_initial_state()

    def persist(self, hard_state: HardState | None, truncate_from: int | None, entries: Sequence[Entry]) -> None:
        self.loop.call_soon_threadsafe(self.begun.put_nowait, len(entries))
        assert self.gate.wait(30)
        self.store.persist(hard_state, truncate_from, entries)

    def apply_to_state_machine(self, entries: Sequence[Entry]) -> Sequence[Any]:
        self.applied += entries
        return [None for _ in entries]

    def close(self) -> None:
        self.closed = True


class Network:
    """Answers, or does not, as the test says; keeps what was sent."""

    def __init__(self) -> None:
        self.sent: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.answers: list[asyncio.Future[Any]] = []
        self.raises = False

    def pre_vote(self, target: str, rpc: VoteRequest) -> Awaitable[VoteResponse]:
        return self._send("pre_vote", rpc)

    def vote(self, target: str, rpc: VoteRequest) -> Awaitable[VoteResponse]:
        return self._send("vote", rpc)

    def append_entries(self, target: str, rpc: AppendEntriesRequest) -> Awaitable[Any]:
        return self._send("append_entries", rpc)

    def _send(self, method: str, rpc: Any) -> asyncio.Future[Any]:
        self.sent.put_nowait((method, rpc))
        if self.raises:
            raise OSError("the cable is out")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return answer


class Agreeing(Network):
    """Its peers grant every vote and hold everything that they are sent, until it no longer `agrees`."""

    agrees = True

    def _send(self, method: str, rpc: Any) -> asyncio.Future[Any]:
        answer = super()._send(method, rpc)
        if not self.agrees:
            pass
        elif isinstance(rpc, VoteRequest):
            term = rpc.term - (method == "pre_vote")  # a promise adopts no term
            answer.set_result(VoteResponse(term, vote_granted=True))
        else:
            verified = rpc.prev_log_index + len(rpc.entries)
            answer.set_result(AppendEntriesResponse(rpc.term, success=True, verified_index=verified))
        return answer


async def alone(storage: GatedStorage) -> Raft:
    """A leader without peers."""
    raft = Raft("n1", Config("test"), Network(), storage)
    await raft.initialize({"n1"})
    await raft.metrics().wait_for(lambda metrics: metrics.last_applied == 1)
    while not storage.begun.empty():
        storage.begun.get_nowait()
    return raft


async def three(storage: GatedStorage, network: Network) -> Raft:
    """A leader with two peers, whose disk works from now on."""
    raft = Raft("n1", Config("test"), network, storage)
    await raft.initialize({"n1", "n2", "n3"})
    await raft.metrics().wait_for(lambda metrics: metrics.last_applied == 1)
    while storage.store.get_initial_state().entries == ():
        await asyncio.sleep(0)  # its peers held the first entry before its own disk did
    while not storage.begun.empty():
        storage.begun.get_nowait()
    storage.gate.clear()
    return raft
