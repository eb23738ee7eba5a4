"""The loop around the core: what waits for the disk, what the disk takes together, and messages that get no answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest
from driver_harness import Agreeing, GatedStorage, Network, alone, three

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Config,
    Entry,
    LeadershipLost,
    Normal,
    Raft,
    RaftStorageError,
    ShuttingDown,
)


async def test_what_comes_while_the_disk_works_is_written_together_and_answered_after_it() -> None:
    storage = GatedStorage()
    raft = await alone(storage)
    storage.gate.clear()
    first = raft.begin_write("first")
    assert await storage.begun.get() == 1
    others = [raft.begin_write(number) for number in range(10)]
    await asyncio.sleep(0.01)
    assert not first.done()
    assert storage.begun.empty(), "one write at a time"
    storage.gate.set()
    assert (await first).index == 2
    assert [(await other).index for other in others] == list(range(3, 13))
    assert await storage.begun.get() == 10
    assert [entry.index for entry in storage.applied] == list(range(1, 13)), "each once, in order"
    await raft.shutdown()


async def test_reads_do_not_wait_for_a_disk_that_works_on_a_write() -> None:
    storage = GatedStorage()
    raft = await alone(storage)
    storage.gate.clear()
    write = raft.begin_write("x")
    await storage.begun.get()
    await raft.begin_read()
    assert not write.done()
    assert raft.metrics().current.last_applied == 1
    storage.gate.set()
    await write
    await raft.shutdown()


async def test_a_leader_replicates_commits_and_answers_while_its_own_disk_works() -> None:
    storage = GatedStorage()
    raft = await three(storage, Agreeing())
    first = await raft.begin_write("a quorum of the others holds it")
    second = await raft.begin_write("that came while the disk worked, too")
    assert (first.index, second.index) == (2, 3)
    assert storage.store.get_initial_state().entries[-1].index == 1  # nothing of them is on its own disk
    storage.gate.set()
    await raft.shutdown()


async def test_what_could_depose_a_leader_waits_for_its_disk() -> None:
    storage = GatedStorage()
    raft = await three(storage, Agreeing())
    write = raft.begin_write("x")
    await storage.begun.get()
    term = raft.metrics().current.current_term
    entries = AppendEntriesRequest(term + 1, "n2", 1, term, (), 1)
    deposing = asyncio.ensure_future(raft.append_entries(entries))
    assert (await write).index == 2
    assert not deposing.done()
    assert raft.metrics().current.current_term == term
    storage.gate.set()
    assert (await deposing).term == term + 1
    assert storage.store.get_initial_state().hard_state.current_term == term + 1
    await raft.shutdown()


async def test_shutdown_waits_for_the_write_under_way_and_tells_who_waits() -> None:
    storage = GatedStorage()
    raft = await alone(storage)
    storage.gate.clear()
    write = raft.begin_write("x")
    await storage.begun.get()
    later = raft.begin_write("y")
    ending = asyncio.ensure_future(raft.shutdown())
    await asyncio.sleep(0.01)
    assert not ending.done()
    assert not storage.closed
    storage.gate.set()
    await ending
    assert storage.closed
    with pytest.raises((ShuttingDown, LeadershipLost)):
        await later  # it was never looked at, and whoever asked cannot know
    assert write.done()
    with pytest.raises(ShuttingDown):
        raft.begin_read()


async def test_a_storage_that_does_not_open_ends_the_node() -> None:
    storage = GatedStorage()

    def fail() -> Any:
        raise OSError("unreadable")

    storage.get_initial_state = fail  # type: ignore[method-assign]
    raft = Raft("n1", Config("test"), Network(), storage)
    read = raft.begin_read()
    with pytest.raises(RaftStorageError, match="unreadable"):
        await raft.wait_closed()
    with pytest.raises(ShuttingDown):
        await read


async def test_a_message_without_an_answer_is_given_up_and_another_is_sent() -> None:
    network = Network()
    config = Config("test", election_timeout_min=20, election_timeout_max=30, heartbeat_interval=10)
    raft = Raft("n1", config, network, GatedStorage())
    await raft.initialize({"n1", "n2"})
    first = await network.sent.get()
    second = await network.sent.get()
    assert (first[0], second[0]) == ("pre_vote", "pre_vote")
    with pytest.raises(asyncio.CancelledError):
        await network.answers[0]
    await raft.shutdown()


@pytest.mark.parametrize("how", ["at once", "later"])
async def test_a_network_that_fails_costs_one_message_and_not_the_node(how: str) -> None:
    network = Network()
    network.raises = how == "at once"
    config = Config("test", election_timeout_min=20, election_timeout_max=30, heartbeat_interval=10)
    raft = Raft("n1", config, network, GatedStorage())
    await raft.initialize({"n1", "n2"})
    for _ in range(3):
        await network.sent.get()
        while network.answers:
            network.answers.pop().set_exception(OSError("the cable is out"))
    assert not raft.closing
    await raft.shutdown()


async def test_a_pending_message_does_not_outlive_the_node() -> None:
    network = Network()
    raft = Raft("n1", Config("test"), network, GatedStorage())
    await raft.initialize({"n1", "n2"})
    await network.sent.get()
    await raft.shutdown()
    with pytest.raises(asyncio.CancelledError):
        await network.answers[0]


async def test_a_leader_is_heard_while_its_disk_works_until_that_takes_too_long() -> None:
    storage, network = GatedStorage(), Agreeing()
    raft = Raft("n1", Config("test", disk_stall_timeouts=1), network, storage)
    await raft.initialize({"n1", "n2", "n3"})
    await raft.metrics().wait_for(lambda metrics: metrics.last_applied == 1)
    storage.gate.clear()
    write = raft.begin_write("x")
    while not network.sent.empty():
        network.sent.get_nowait()
    while (await network.sent.get())[1].entries == ():
        pass
    beats = 0
    with contextlib.suppress(TimeoutError):
        while True:
            _, rpc = await asyncio.wait_for(network.sent.get(), 1)  # much longer than the 300 ms that it is to be heard
            beats += not rpc.entries
    assert beats >= 2  # to one peer, at least
    assert (await write).index == 2  # the others hold it
    late = raft.begin_write("too late: this node has fallen silent")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(late), 0.05)
    storage.gate.set()
    with pytest.raises(LeadershipLost):  # it looks for its quorum, of which it had not heard for too long
        await late
    await raft.shutdown()


async def test_who_watches_sees_what_a_leader_does_while_its_disk_works() -> None:
    storage = GatedStorage()
    raft = await three(storage, Agreeing())
    seen = asyncio.ensure_future(raft.metrics().wait_for(lambda metrics: metrics.last_applied == 2))
    await asyncio.sleep(0)
    raft.begin_write("x")
    assert (await asyncio.wait_for(seen, 10)).commit_index == 2
    storage.gate.set()
    await raft.shutdown()


async def test_a_disk_that_fails_takes_back_nothing_that_was_acknowledged() -> None:
    storage, network = GatedStorage(), Agreeing()
    raft = await three(storage, network)
    acknowledged = await raft.begin_write("the others hold it")
    network.agrees = False
    unknown = raft.begin_write("nobody says so")
    await asyncio.sleep(0)

    def fail(*_: Any) -> None:
        raise OSError("Input/output error")

    storage.store.persist = fail  # type: ignore[method-assign]
    storage.gate.set()
    with pytest.raises(RaftStorageError, match="Input/output error"):
        await raft.wait_closed()
    assert acknowledged.index == 2
    with pytest.raises(LeadershipLost):
        await unknown


async def test_a_state_machine_that_fails_while_the_disk_works_ends_the_node() -> None:
    storage = GatedStorage()
    raft = await three(storage, Agreeing())

    def fail(entries: Sequence[Entry]) -> Sequence[Any]:
        raise ValueError("no such key")

    storage.apply_to_state_machine = fail  # type: ignore[method-assign]
    write = raft.begin_write("x")
    with pytest.raises((ShuttingDown, LeadershipLost)):
        await write
    storage.gate.set()
    with pytest.raises(RaftStorageError, match="no such key"):
        await raft.wait_closed()


async def test_a_node_that_is_to_end_after_a_write_takes_nothing_more() -> None:
    storage, network = GatedStorage(), Agreeing()
    raft = await three(storage, network)
    network.agrees = False
    write = raft.begin_write("x")
    while not network.answers or network.answers[-1].done():
        await asyncio.sleep(0)
    ending = asyncio.ensure_future(raft.shutdown())
    await asyncio.sleep(0)
    for answer in network.answers:
        if not answer.done():
            answer.set_result(AppendEntriesResponse(1, success=True, verified_index=2))
    await asyncio.sleep(0.01)
    assert not write.done()
    storage.gate.set()
    await ending
    with pytest.raises((ShuttingDown, LeadershipLost)):  # fate unknown
        await write


async def test_nothing_leaves_of_a_node_that_ended_while_its_disk_worked() -> None:
    storage, network = GatedStorage(), Network()
    raft = Raft("n1", Config("test", pre_vote=False), network, storage)
    storage.gate.clear()
    standing = asyncio.ensure_future(raft.initialize({"n1", "n2"}))
    await storage.begun.get()  # its vote for itself: it is on disk before anyone is asked for theirs
    raft._driver._snapshots._fail(RaftStorageError("a snapshot could not be received"))
    storage.gate.set()
    with pytest.raises(RaftStorageError, match="could not be received"):
        await raft.wait_closed()
    with pytest.raises(ShuttingDown):
        await standing
    assert network.sent.empty()


async def test_a_follower_answers_heartbeats_while_its_disk_works_and_takes_entries_after_it() -> None:
    storage = GatedStorage()
    raft = Raft("n2", Config("test"), Network(), storage)
    entry = Entry(1, 1, Normal("x"))
    heartbeat = AppendEntriesRequest(1, "n1", 0, 0, (), 0)
    await raft.append_entries(heartbeat)
    storage.gate.clear()
    appended = raft.receive("append_entries", AppendEntriesRequest(1, "n1", 0, 0, (entry,), 0))
    while await storage.begun.get() != 1:
        pass
    assert await raft.append_entries(heartbeat) == AppendEntriesResponse(1, success=False)
    assert not appended.done()
    storage.gate.set()
    assert (await appended).verified_index == 1
    await raft.shutdown()
