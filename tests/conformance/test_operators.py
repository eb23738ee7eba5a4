"""The facade's calls for operators, on whole nodes in one process: raft.md section 1 and triggers of section 3."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from in_process import ListMachine, Nodes

from raftbed.nodes.raft import (
    Config,
    ConfigChangeInProgress,
    ConfigError,
    InoperableConfig,
    LogsSinceLast,
    MembershipConfig,
    NodeNotLeader,
    Noop,
    Raft,
    RaftStorageError,
    Rate,
    ShuttingDown,
    SnapshotError,
    State,
    TransferNotLeader,
    TransferRefused,
)

CALM: dict[str, Any] = {"election_timeout_min": 1000, "election_timeout_max": 2000}
"""No leader is deposed because this machine has other things to do."""


class Failing:
    """A storage of which one method fails."""

    def __init__(self, inner: Any, method: str) -> None:
        self._inner, self._method = inner, method

    def __getattr__(self, name: str) -> Any:
        if name != self._method:
            return getattr(self._inner, name)

        def fail(*arguments: Any, **options: Any) -> None:
            raise OSError(28, "No space left on device")

        return fail


async def small_cluster(nodes: Nodes) -> Raft:
    """Makes n1 alone a cluster; the others are pristine."""
    await nodes["n1"].initialize({"n1"})
    await nodes["n1"].metrics().wait_for(lambda metrics: metrics.state is State.LEADER)
    return nodes["n1"]


async def test_add_non_voter():
    async with Nodes(2, **CALM) as nodes:
        leader = await small_cluster(nodes)
        await leader.client_write("x")
        await leader.add_non_voter("n2")
        assert nodes.machines["n2"].commands == ["x"]
        assert nodes["n2"].metrics().current.state is State.NON_VOTER
        assert leader.streams()["n2"][0] is Rate.LINE_RATE
        with pytest.raises(Noop):
            await leader.add_non_voter("n2")
        with pytest.raises(NodeNotLeader) as refused:
            await nodes["n2"].add_non_voter("n9")
        assert refused.value.leader == "n1"


async def test_change_membership():
    async with Nodes(3, **CALM) as nodes:
        leader = await small_cluster(nodes)
        await leader.change_membership({"n1", "n2", "n3"})
        assert leader.metrics().current.membership_config == MembershipConfig(("n1", "n2", "n3"))
        written = await leader.client_write("x")
        await nodes.applied(written.index)
        with pytest.raises(InoperableConfig):
            await leader.change_membership(set())
        with pytest.raises(Noop):
            await leader.change_membership({"n1", "n2", "n3"})
        with pytest.raises(NodeNotLeader):
            await nodes["n2"].change_membership({"n2"})


async def test_change_membership_while_another_is_under_way():
    async with Nodes(2, **CALM) as nodes:
        leader = await small_cluster(nodes)
        nodes.wires.cut = {"n2"}
        first = asyncio.ensure_future(leader.change_membership({"n1", "n2"}))
        await leader.metrics().wait_for(lambda metrics: metrics.membership_config.non_voters == ("n2",))
        with pytest.raises(ConfigChangeInProgress):
            await leader.change_membership({"n2"})
        nodes.wires.cut = set()
        await first


async def test_a_removed_leader_becomes_a_non_voter():
    async with Nodes(3, **CALM) as nodes:
        leader = await nodes.form()
        rest = {name for name in nodes.names if name != leader.id}
        await leader.change_membership(rest)
        await leader.metrics().wait_for(lambda metrics: metrics.state is State.NON_VOTER)
        other = nodes[min(rest)]
        await other.metrics().wait_for(lambda metrics: metrics.current_leader in rest)


async def test_memberships_are_told_as_they_come_into_force():
    told: list[MembershipConfig] = []
    async with Nodes(2, **CALM) as nodes:
        nodes["n1"]._driver._on_membership = told.append
        leader = await small_cluster(nodes)
        await leader.add_non_voter("n2", "10.0.0.2:8401")
        assert [membership.nodes() for membership in told] == [("n1",), ("n1", "n2")]
        assert dict(told[-1].addresses) == {"n2": "10.0.0.2:8401"}


async def test_transfer_leadership():
    async with Nodes(3, **CALM) as nodes:
        leader = await nodes.form()
        target = next(name for name in nodes.names if name != leader.id)
        await leader.transfer_leadership(target)
        assert leader.metrics().current.state is not State.LEADER
        await leader.metrics().wait_for(lambda metrics: metrics.current_leader == target)
        with pytest.raises(TransferNotLeader):
            await leader.transfer_leadership(target)
        with pytest.raises(TransferRefused):
            await nodes[target].transfer_leadership("n9")


async def test_trigger_snapshot():
    async with Nodes(1, trailing_logs=0) as nodes:
        with pytest.raises(SnapshotError):
            await nodes["n1"].trigger_snapshot()
        leader = await nodes.form()
        await leader.client_write("x")
        snapshot = await leader.trigger_snapshot()
        assert snapshot == leader.snapshot() == await leader.trigger_snapshot()
        assert snapshot.index == leader.metrics().current.last_applied


async def test_client_writes():
    """Six clients, 1000 writes each, and a node that was away: all is on all nodes, once, whatever was compacted."""
    options = {"snapshot_policy": LogsSinceLast(500), "trailing_logs": 50, "snapshot_max_chunk_size": 10_000}
    async with Nodes(3, **options, **CALM) as nodes:
        leader = await nodes.form()
        away = next(name for name in nodes.names if name != leader.id)
        nodes.wires.cut = {away}

        async def client(name: str) -> None:
            for number in range(1000):
                await leader.client_write([name, number])

        await asyncio.gather(*[client(f"c{number}") for number in range(6)])
        nodes.wires.cut = set()
        await nodes.applied(leader.metrics().current.last_applied)
        commands = nodes.machines[leader.id].commands
        assert len(commands) == 6000
        assert all(machine.commands == commands for machine in nodes.machines.values())
        assert all(nodes[name].snapshot() for name in nodes.names)


async def test_restart_from_a_snapshot():
    async with Nodes(1, snapshot_policy=LogsSinceLast(10), trailing_logs=0) as nodes:
        leader = await nodes.form()
        for number in range(35):
            await leader.client_write(number)
        await leader.trigger_snapshot()
        await leader.client_write("after")
        await leader.shutdown()
        assert nodes.start("n1").metrics().current.last_applied == 0
        leader = await nodes.leader()
        await leader.client_read()
        assert nodes.machines["n1"].commands == [*range(35), "after"]


@pytest.mark.parametrize("method", ["capture_state", "write_snapshot"])
async def test_a_snapshot_that_cannot_be_taken_is_logged_and_stops_nothing(method, caplog):
    async with Nodes(1) as nodes:
        await nodes["n1"].shutdown()
        nodes.start("n1", lambda inner: Failing(inner, method))
        leader = await nodes.form()
        await leader.client_write("x")
        with pytest.raises(SnapshotError, match="No space left"):
            await leader.trigger_snapshot()
        assert "No space left" in caplog.text
        await leader.client_write("y")


@pytest.mark.parametrize("method", ["receive_snapshot", "restore_snapshot"])
async def test_storage_error_shuts_down_while_a_snapshot_is_taken_in(method):
    async with Nodes(2, trailing_logs=0) as nodes:
        leader = await small_cluster(nodes)
        await nodes["n2"].shutdown()
        await leader.client_write("x")
        await leader.trigger_snapshot()
        nodes.start("n2", lambda inner: Failing(inner, method))
        adding = asyncio.ensure_future(leader.add_non_voter("n2"))
        with pytest.raises(RaftStorageError, match="No space left"):
            await nodes["n2"].wait_closed()
        adding.cancel()
        with pytest.raises(ShuttingDown):
            await nodes["n2"].client_read()


CALLS: dict[str, Callable[[Raft], Any]] = {
    "add_non_voter": lambda raft: raft.add_non_voter("n2"),
    "change_membership": lambda raft: raft.change_membership({"n2"}),
    "transfer_leadership": lambda raft: raft.transfer_leadership(),
    "trigger_snapshot": lambda raft: raft.trigger_snapshot(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_every_call_for_operators_after_shutdown_says_so(call):
    async with Nodes(1) as nodes:
        leader = await nodes.form()
        await leader.shutdown()
        with pytest.raises(ShuttingDown):
            await call(leader)


async def test_shutdown_during_a_snapshot_waits_for_it_to_stop():
    """The storage is closed when nothing uses it any more."""
    async with Nodes(1) as nodes:
        leader = await nodes.form()
        for number in range(100):
            await leader.client_write(number)
        taking = asyncio.ensure_future(leader.trigger_snapshot())
        await asyncio.sleep(0)
        await leader.shutdown()
        with pytest.raises((ShuttingDown, SnapshotError)):
            await taking


def test_the_machine_of_these_tests_can_be_written_down():
    machine, other = ListMachine(), ListMachine()
    machine.apply({"a": 1})
    other.load(iter(machine.capture()()))()
    assert other.commands == machine.commands


@pytest.mark.parametrize(("given", "policy"), [({}, LogsSinceLast(5000)), (7, LogsSinceLast(7)), (None, None)])
def test_snapshot_policy_in_a_file_is_a_number(given, policy):
    options = {} if given == {} else {"snapshot_policy": given}
    assert Config.from_mapping("c", options).snapshot_policy == policy


@pytest.mark.parametrize("given", [0, -1, True, "often", 2.5])
def test_snapshot_policy_that_cannot_be(given):
    with pytest.raises(ConfigError, match="snapshot_policy: must be a whole number of at least 1"):
        Config.from_mapping("c", {"snapshot_policy": given})
