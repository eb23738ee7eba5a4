"""What a storage or a state machine raises: where it costs the node, where it is only told; and its type and cause."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from in_process import ListMachine, Nodes

from raftbed.nodes.raft import (
    Config,
    ConfigChangeUnknown,
    MembershipConfig,
    Raft,
    RaftStorageError,
    ShuttingDown,
    SnapshotError,
    State,
    VoteRequest,
)

ROUSED: dict[str, Any] = {"trailing_logs": 0, "election_timeout_min": 1000, "election_timeout_max": 2000}


class Failing:
    """A storage of which one method raises what `error` makes, as long as there is one."""

    def __init__(self, inner: Any, method: str, error: Exception | None) -> None:
        self._inner, self._method, self.error = inner, method, error
        self.asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        if name != self._method:
            return getattr(self._inner, name)

        def perhaps(*arguments: Any, **options: Any) -> Any:
            self._loop.call_soon_threadsafe(self.asked.set)
            if self.error is not None:
                raise self.error
            return getattr(self._inner, name)(*arguments, **options)

        return perhaps


class Machine(ListMachine):
    """A state machine that raises an error where it is told to."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def capture(self) -> Callable[[], Iterator[bytes]]:
        if self.where == "capture":
            raise KeyError("a bug")
        if self.where == "pieces":
            return lambda: iter([{}["a bug"]])
        return super().capture()

    def load(self, pieces: Iterable[bytes]) -> Callable[[], None]:
        if self.where == "load":
            raise KeyError("a bug")
        begin = super().load(iter(pieces))
        return (lambda: {}["a bug"]) if self.where == "begin" else begin


def with_machine(where: str) -> Callable[[Any], Any]:
    def wrap(storage: Any) -> Any:
        storage._machine = Machine(where)
        return storage

    return wrap


async def alone(nodes: Nodes, wrap: Callable[[Any], Any]) -> Raft:
    """Node n1, on a storage that `wrap` makes, with a command to take a snapshot of."""
    await nodes["n1"].shutdown()
    nodes.start("n1", wrap)
    await nodes["n1"].initialize({"n1"})
    await nodes["n1"].metrics().wait_for(lambda metrics: metrics.state is State.LEADER)
    await nodes["n1"].client_write("x")
    return nodes["n1"]


@pytest.mark.parametrize("where", ["capture", "pieces"])
async def test_a_snapshot_that_fails_says_what_was_raised_and_where(where: str, caplog):
    async with Nodes(1) as nodes:
        leader = await alone(nodes, with_machine(where))
        with pytest.raises(SnapshotError) as error:
            await leader.trigger_snapshot()
        assert str(error.value) == "KeyError: 'a bug'"
        assert isinstance(error.value.__cause__, KeyError)
        assert "the snapshot of entry 2 failed: KeyError: 'a bug'" in caplog.text
        assert "Traceback" in caplog.text
        await leader.client_write("the node goes on")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("load", "a snapshot could not be received: KeyError: 'a bug'"),
        ("begin", "the snapshot could not be restored: KeyError: 'a bug'"),
    ],
)
async def test_a_snapshot_that_cannot_be_taken_in_says_what_was_raised(where: str, message: str):
    async with Nodes(2, **ROUSED) as nodes:
        leader = await alone(nodes, lambda storage: storage)
        await leader.trigger_snapshot()
        await nodes["n2"].shutdown()
        nodes.start("n2", with_machine(where))
        adding = asyncio.ensure_future(leader.add_non_voter("n2"))
        with pytest.raises(RaftStorageError) as failure:
            await nodes["n2"].wait_closed()
        adding.cancel()
        assert str(failure.value) == message
        assert isinstance(failure.value.__cause__, KeyError)


async def test_a_node_whose_snapshot_cannot_be_read_stops():
    """A peer that needs it would wait for ever; another leader may have what this one lost."""
    async with Nodes(2, **ROUSED) as nodes:
        failing = OSError(5, "Input/output error")
        leader = await alone(nodes, lambda inner: Failing(inner, "read_snapshot", failing))
        await leader.trigger_snapshot()
        adding = asyncio.ensure_future(leader.add_non_voter("n2"))
        with pytest.raises(RaftStorageError, match=r"the snapshot cannot be read: .* Input/output error") as failure:
            await leader.wait_closed()
        assert failure.value.__cause__ is failing
        await asyncio.wait([adding])
        assert isinstance(adding.exception(), ConfigChangeUnknown | ShuttingDown)


async def test_a_snapshot_that_cannot_be_opened_for_too_many_files_is_told_and_sent_when_it_can(caplog):
    async with Nodes(2, **ROUSED) as nodes:
        storages: list[Failing] = []

        def wrap(inner: Any) -> Any:
            storages.append(Failing(inner, "read_snapshot", OSError(errno.EMFILE, "Too many open files")))
            return storages[-1]

        leader = await alone(nodes, wrap)
        await leader.trigger_snapshot()
        adding = asyncio.ensure_future(leader.add_non_voter("n2"))
        for _ in range(3):
            await storages[0].asked.wait()
            storages[0].asked.clear()
        storages[0].error = None
        await adding
        said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert said == [
            "node n1: install_snapshot to n2 failed: the snapshot cannot be read: [Errno 24] Too many open files "
            "(said once, until the reason changes)"
        ]


async def test_a_storage_that_cannot_be_closed_is_told(caplog):
    async with Nodes(1) as nodes:
        leader = await alone(nodes, lambda inner: Failing(inner, "close", OSError(5, "Input/output error")))
        await leader.shutdown()
        await leader.wait_closed()
        assert [record.getMessage() for record in caplog.records] == [
            "node n1: its storage could not be closed: [Errno 5] Input/output error"
        ]


async def test_what_on_membership_raises_ends_the_node():
    async with Nodes(1) as nodes:

        def refuse(membership: MembershipConfig) -> None:
            raise ValueError("no such host")

        nodes["n1"]._driver._on_membership = refuse
        with pytest.raises(ShuttingDown) as refused:
            await nodes["n1"].initialize({"n1"})
            await nodes["n1"].client_read()
        with pytest.raises(ValueError, match="no such host"):
            await nodes["n1"].wait_closed()
        assert isinstance(refused.value.__cause__, ValueError)


async def test_a_membership_is_told_once_there_is_one():
    """Not the empty one of a pristine node: who connects to the nodes in it would hear that there are none."""
    told: list[MembershipConfig] = []
    async with Nodes(2) as nodes:

        def start() -> Raft:
            storage = nodes.storage("n1")
            return Raft("n1", Config("test"), nodes.wires.of("n1"), storage, on_membership=told.append)

        await nodes["n1"].shutdown()
        raft = start()
        await raft.pre_vote(VoteRequest(1, "n2", 0, 0))
        await raft.initialize({"n1"})
        await raft.client_write("x")
        await raft.shutdown()
        raft = start()
        await raft.metrics().wait_for(lambda metrics: metrics.last_applied >= 2)
        await raft.shutdown()
    assert told == [MembershipConfig(("n1",))] * 2


async def test_a_node_that_has_shut_down_can_be_looked_at_and_takes_nothing():
    async with Nodes(1) as nodes:
        leader = await alone(nodes, lambda storage: storage)
        snapshot = await leader.trigger_snapshot()
        await leader.shutdown()
        assert leader.metrics().current.last_applied == snapshot.index
        assert leader.metrics().current.state is State.SHUTDOWN
        assert await leader.current_leader() is None
        assert leader.snapshot() == snapshot
        assert leader.streams() == {}
        for trigger in (leader.trigger_election, leader.trigger_heartbeat):
            with pytest.raises(ShuttingDown):
                trigger()
        await leader.shutdown()
        await leader.wait_closed()
