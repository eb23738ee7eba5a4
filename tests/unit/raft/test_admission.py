"""What clients ask of a node whose disk hangs is bounded; what its peers say is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests_served_node import Gate

from raftbed.nodes.peers import PeerNetwork
from raftbed.nodes.raft import (
    AppendEntriesRequest,
    Blank,
    Config,
    Entry,
    Overloaded,
    Raft,
    ReadForwardToLeader,
    ReadOverloaded,
    ShuttingDown,
    VoteRequest,
    WriteForwardToLeader,
)
from raftbed.nodes.state_machine import KeyValueStateMachine

FOLLOWING, LEADING = "a follower", "a leader"


def command(value: Any) -> dict[str, Any]:
    return {"op": "put", "key": "k", "value": value}


def append(index: int) -> AppendEntriesRequest:
    before = 3 if index > 1 else 0
    return AppendEntriesRequest(3, "n2", index - 1, before, (Entry(index, 3, Blank()),), index)


@asynccontextmanager
async def hanging(role: str = FOLLOWING, **options: Any) -> AsyncIterator[tuple[Raft, Gate]]:
    """A node whose disk works on a write, and will not be done with it until the gate is opened."""
    gate = Gate(KeyValueStateMachine())
    raft = Raft("n1", Config("test", **options), PeerNetwork("test", {}, timeout=1), gate)
    if role == LEADING:
        await raft.initialize({"n1"})
        await raft.metrics().wait_for(lambda metrics: metrics.last_applied > 0)
    else:
        await raft.append_entries(append(1))
    gate.close_gate()
    waits = raft.begin_write(command(0)) if role == LEADING else raft.receive("append_entries", append(2))
    await gate.has_write()
    try:
        yield raft, gate
    finally:
        gate.free.set()
        await raft.shutdown()
        assert waits.done()


async def test_so_many_writes_wait_and_no_more_are_let_in() -> None:
    async with hanging(max_uncommitted_entries=5) as (raft, gate):
        waiting = [raft.begin_write(command(number)) for number in range(5)]
        for _ in range(2):
            with pytest.raises(Overloaded, match="5 writes wait for the disk"):
                raft.begin_write(command("one too many"))
        gate.free.set()
        for write in waiting:
            with pytest.raises(WriteForwardToLeader):
                await write
        with pytest.raises(WriteForwardToLeader):
            await raft.begin_write(command("there is room again"))


async def test_so_many_bytes_of_writes_wait_and_no_more_are_let_in() -> None:
    async with hanging(max_uncommitted_bytes=1000) as (raft, _):
        for _ in range(3):
            raft.begin_write(command("x" * 400))
        with pytest.raises(Overloaded, match="3 writes wait for the disk"):
            raft.begin_write(command("small"))


async def test_so_many_reads_wait_and_no_more_are_let_in() -> None:
    async with hanging(max_waiting_reads=5) as (raft, gate):
        waiting = [raft.begin_read() for _ in range(5)]
        with pytest.raises(ReadOverloaded, match="5 reads wait for the disk"):
            raft.begin_read()
        raft.begin_write(command("writes are counted by themselves"))
        gate.free.set()
        for read in waiting:
            with pytest.raises(ReadForwardToLeader):
                await read


async def test_what_peers_say_is_let_in_however_much_of_it_waits() -> None:
    async with hanging(max_uncommitted_entries=1, max_uncommitted_bytes=1, max_waiting_reads=1) as (raft, gate):
        raft.begin_write(command(1))
        raft.begin_read()
        said = [raft.receive("append_entries", append(index)) for index in range(3, 50)]
        gate.free.set()
        assert [(await answer).verified_index for answer in said] == list(range(3, 50))


async def test_what_a_leader_takes_beside_its_disk_does_not_wait_for_it() -> None:
    """Though something else does: a candidate, whose vote needs the disk."""
    async with hanging(LEADING, max_waiting_reads=3, max_uncommitted_entries=30) as (raft, gate):
        asking = raft.receive("vote", VoteRequest(9, "n2", 9, 9, leadership_transfer=True))
        for _ in range(10):
            await raft.begin_read()
        writes = []
        for number in range(20):
            writes.append(raft.begin_write(command(number)))
            await asyncio.sleep(0)
        assert not asking.done()
        gate.free.set()
        await asyncio.gather(*writes, return_exceptions=True)
        assert (await asking).vote_granted


async def test_a_leader_whose_disk_hangs_for_too_long_lets_in_no_more_than_another() -> None:
    async with hanging(
        LEADING, max_uncommitted_entries=5, max_waiting_reads=5, disk_stall_timeouts=0, max_uncommitted_bytes=1 << 20
    ) as (raft, _):
        for number in range(5):
            raft.begin_write(command(number))
            raft.begin_read()
            await asyncio.sleep(0)  # the leader looks at it, and leaves it where it is
        with pytest.raises(Overloaded, match="5 writes wait for the disk"):
            raft.begin_write(command("one too many"))
        with pytest.raises(ReadOverloaded, match="5 reads wait for the disk"):
            raft.begin_read()


async def test_a_node_that_has_shut_down_says_that_and_not_that_it_has_too_much_to_do() -> None:
    async with hanging(max_waiting_reads=1, max_uncommitted_entries=1) as (raft, gate):
        gate.free.set()
        await raft.shutdown()
        for _ in range(3):
            with pytest.raises(ShuttingDown):
                raft.begin_read()
            with pytest.raises(ShuttingDown):
                raft.begin_write(command(1))
