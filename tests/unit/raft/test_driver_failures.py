"""Why a node stopped, and what its network does wrong, is told: in the log, and as the cause of every refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from driver_harness import Agreeing, GatedStorage, Network, alone, three

from raftbed.nodes.raft import (
    Config,
    Entry,
    LeadershipLost,
    Raft,
    RaftNetworkError,
    RaftStorageError,
    ShuttingDown,
    State,
    TimeoutNowResponse,
)
from raftbed.nodes.storage import StorageError

WARNING = "node n1: pre_vote to n2 failed: {} (said once, until the reason changes)"


class Failing:
    """A network that `brings` the same, whatever is asked of it."""

    def __init__(self, brings: Any) -> None:
        self.brings = brings
        self.asked: asyncio.Queue[str] = asyncio.Queue()

    def __getattr__(self, method: str) -> Any:
        def call(target: str, rpc: Any) -> Any:
            self.asked.put_nowait(method)
            return self.brings()

        return call


async def test_why_a_node_stopped_is_logged_and_is_the_cause_of_every_refusal(caplog) -> None:
    storage = GatedStorage()
    raft = await three(storage, Agreeing())
    watching = asyncio.ensure_future(raft.metrics().changed())
    waiting = asyncio.ensure_future(raft.trigger_snapshot())
    await asyncio.sleep(0)

    def fail(entries: Sequence[Entry]) -> Sequence[Any]:
        raise KeyError("no such account")

    storage.apply_to_state_machine = fail  # type: ignore[method-assign]
    write = raft.begin_write("x")
    refusals: list[BaseException] = []
    for pending in (write, waiting):
        with pytest.raises((ShuttingDown, LeadershipLost)) as refused:
            await pending
        refusals.append(refused.value)
    storage.gate.set()
    with pytest.raises(RaftStorageError) as failure:
        await raft.wait_closed()
    assert str(failure.value) == "the state machine failed: KeyError: 'no such account'"
    assert isinstance(failure.value.__cause__, KeyError)
    assert (await watching).state is State.SHUTDOWN
    for call in (raft.client_write("y"), raft.client_read(), raft.initialize({"n1"}), raft.metrics().changed()):
        with pytest.raises(ShuttingDown) as refused:
            await call
        refusals.append(refused.value)
    assert [refusal.__cause__ for refusal in refusals] == [failure.value] * 6
    logged = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert [record.getMessage() for record in logged] == [f"node n1 stops: {failure.value}"]
    assert "raise KeyError" in caplog.text  # where in the application it was


async def test_what_a_storage_foresaw_is_logged_in_one_line(caplog) -> None:
    storage = GatedStorage()

    def fail() -> Any:
        raise StorageError("data/00000001.log: does not have its checksum.")

    storage.get_initial_state = fail  # type: ignore[method-assign]
    raft = Raft("n1", Config("test"), Network(), storage)
    with pytest.raises(RaftStorageError):
        await raft.wait_closed()
    assert [record.getMessage() for record in caplog.records] == [
        "node n1 stops: data/00000001.log: does not have its checksum."
    ]
    assert "Traceback" not in caplog.text


async def test_a_node_that_is_asked_to_stop_has_no_failure_to_tell_of(caplog) -> None:
    raft = await alone(GatedStorage())
    await raft.shutdown()
    with pytest.raises(ShuttingDown) as refused:
        await raft.client_write("x")
    assert refused.value.__cause__ is None
    assert caplog.records == []


def raising(error: Exception) -> Any:
    async def call() -> Any:
        raise error

    return call


def bringing(answer: Any) -> Any:
    async def call() -> Any:
        return answer

    return call


@pytest.mark.parametrize(
    ("brings", "reason"),
    [
        (raising(ZeroDivisionError("a bug of the network's")), "ZeroDivisionError: a bug of the network's"),
        (bringing("garbage"), "its answer is no VoteResponse, but 'garbage'"),
        (bringing(None), "its answer is no VoteResponse, but None"),
        (bringing(TimeoutNowResponse(1)), "its answer is no VoteResponse, but TimeoutNowResponse(term=1)"),
        (lambda: "at once", "TypeError: An asyncio.Future, a coroutine or an awaitable is required"),
    ],
)
async def test_what_a_network_does_wrong_is_logged_once_until_the_reason_changes(brings: Any, reason: str, caplog):
    failing = Failing(brings)
    config = Config("test", election_timeout_min=20, election_timeout_max=30, heartbeat_interval=10)
    raft = Raft("n1", config, failing, GatedStorage())
    await raft.initialize({"n1", "n2"})
    for _ in range(3):
        await failing.asked.get()
    assert [record.getMessage() for record in caplog.records] == [WARNING.format(reason)]
    failing.brings = raising(KeyError(1))
    for _ in range(3):
        await failing.asked.get()
    failing.brings = raising(KeyError(2))  # the numbers in it may be ports: they make no other reason
    for _ in range(3):
        await failing.asked.get()
    await raft.shutdown()
    assert [record.getMessage() for record in caplog.records] == [
        WARNING.format(reason),
        WARNING.format("KeyError: 1"),
    ]


@pytest.mark.parametrize(
    "loss", [OSError("the cable is out"), TimeoutError(), RaftNetworkError("unplugged"), ShuttingDown()]
)
async def test_a_peer_that_is_away_is_for_the_network_to_log(loss: Exception, caplog) -> None:
    failing = Failing(raising(loss))
    config = Config("test", election_timeout_min=20, election_timeout_max=30, heartbeat_interval=10)
    raft = Raft("n1", config, failing, GatedStorage())
    await raft.initialize({"n1", "n2"})
    for _ in range(3):
        await failing.asked.get()
    await raft.shutdown()
    assert caplog.records == []


async def test_an_answer_of_the_wrong_type_does_not_stop_a_leader_whose_disk_works(caplog) -> None:
    storage, network = GatedStorage(), Agreeing()
    raft = await three(storage, network)
    network.agrees = False
    write = raft.begin_write("x")
    while not (waiting := [answer for answer in network.answers if not answer.done()]):
        await asyncio.sleep(0)
    for answer in waiting:
        answer.set_result("garbage")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not raft.closing
    assert "append_entries to n2 failed: its answer is no AppendEntriesResponse, but 'garbage'" in caplog.text
    storage.gate.set()
    await raft.shutdown()
    with pytest.raises((ShuttingDown, LeadershipLost)):
        await write
