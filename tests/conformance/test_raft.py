"""`Raft`, the facade: its methods and their errors, raft.md sections 1 and 2. Whole nodes, real time, no sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from in_process import Nodes

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    ClientReadError,
    ClientWriteResponse,
    Config,
    ConfigError,
    Entry,
    HardState,
    InitializeNotAllowed,
    LeadershipLost,
    MembershipConfig,
    Overloaded,
    RaftError,
    RaftMetrics,
    RaftStorage,
    RaftStorageError,
    ReadForwardToLeader,
    ShuttingDown,
    State,
    StoredState,
    VoteRequest,
    WriteForwardToLeader,
)

# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cluster_name": ""}, "cluster_name: must be a name"),
        ({"cluster_name": 5}, "cluster_name: must be a name"),
        ({"election_timeout_min": 300}, "election_timeout_min: 300 must be less than election_timeout_max"),
        ({"heartbeat_interval": 150}, "election_timeout_min: 150 must be more than heartbeat_interval"),
        ({"max_payload_entries": 0}, "max_payload_entries: must be a whole number of at least 1, not 0"),
        ({"max_inflight_messages": True}, "max_inflight_messages: must be a whole number"),
        ({"heartbeat_interval": 2.5}, "heartbeat_interval: must be a whole number"),
        ({"pre_vote": "yes"}, "pre_vote: must be true or false, not 'yes'"),
        ({"read_mode": "hope"}, 'read_mode: must be "read-index" or "lease"'),
        ({"snapshot_policy": 5}, "snapshot_policy: must be LogsSinceLast or None, not 5. Write LogsSinceLast(5)."),
        ({"snapshot_policy": 0}, "snapshot_policy: must be LogsSinceLast or None, not 0."),
        ({"snapshot_policy": "often"}, "snapshot_policy: must be LogsSinceLast or None, not 'often'."),
        ({"snapshot_max_chunk_size": 0}, "snapshot_max_chunk_size: must be a whole number of at least 1"),
        (
            {"snapshot_max_chunk_size": (32 << 20) + 1},
            "snapshot_max_chunk_size: must be at most 33554432, not 33554433",
        ),
        ({"max_payload_bytes": 100 << 20}, "max_payload_bytes: must be at most 33554432, not 104857600"),
        ({"replication_lag_threshold": 0}, "replication_lag_threshold: must be a whole number of at least 1"),
        ({"trailing_logs": -1}, "trailing_logs: must be a whole number of at least 0"),
        ({"lease_drift_percent": 100}, "lease_drift_percent: must be less than 100"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(options, message):
    with pytest.raises(ConfigError) as error:
        Config(**{"cluster_name": "test", **options})
    assert str(error.value).startswith(message)
    assert ("Write" in str(error.value)) == ("Write" in message)


def test_an_option_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match=r"^elektion: no such option; there are: election_timeout_min, "):
        Config.from_mapping("test", {"elektion": 1})


# -- initialize -------------------------------------------------------------------------------------------------------


async def test_initialize_adds_the_node_itself():
    async with Nodes(1) as nodes:
        await nodes["n1"].initialize(set())
        metrics = await nodes.wait_for("n1", lambda metrics: metrics.last_applied == 1)
        assert metrics.membership_config == MembershipConfig(("n1",))
        assert metrics.state is State.LEADER


async def test_initialize_is_for_pristine_nodes():
    async with Nodes(3) as nodes:
        await nodes.form()
        for name in nodes.names:
            with pytest.raises(InitializeNotAllowed, match="the node has a log, a term or a role already"):
                await nodes[name].initialize({"n1", "n9"})
        await nodes.applied(1)
        assert nodes["n1"].metrics().current.membership_config == MembershipConfig(("n1", "n2", "n3"))


async def test_initialize_race():
    async with Nodes(3) as nodes:
        calls = [nodes[name].initialize(set(nodes.names)) for name in nodes.names]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(answer is None or isinstance(answer, InitializeNotAllowed) for answer in answers)
        assert None in answers
        leader = await nodes.leader()
        await leader.client_write("x")


async def test_a_pristine_node_serves_nobody():
    async with Nodes(1) as nodes:
        with pytest.raises(WriteForwardToLeader):
            await nodes["n1"].client_write("x")
        with pytest.raises(ReadForwardToLeader):
            await nodes["n1"].client_read()
        assert await nodes["n1"].current_leader() is None


# -- client_write and client_read -------------------------------------------------------------------------------------


async def test_a_write_is_answered_by_the_state_machine():
    async with Nodes(3) as nodes:
        leader = await nodes.form()
        first = await leader.client_write("a")
        second = await leader.client_write("b")
        assert first == ClientWriteResponse(first.index, first.term, data=1)
        assert (second.index, second.data) == (first.index + 1, 2)
        await nodes.applied(second.index)
        assert {tuple(machine.commands) for machine in nodes.machines.values()} == {("a", "b")}


async def test_client_writes():
    """Six clients at once: everything is on all nodes, once, in one order, and each client's writes in its own."""
    async with Nodes(3) as nodes:
        leader = await nodes.form()

        async def client(name: str) -> None:
            for number in range(100):
                await leader.client_write([name, number])
                await leader.client_read()

        await asyncio.gather(*[client(f"c{number}") for number in range(6)])
        await nodes.applied(leader.metrics().current.last_applied)
        commands = nodes.machines["n1"].commands
        assert all(machine.commands == commands for machine in nodes.machines.values())
        for number in range(6):
            assert [of for name, of in commands if name == f"c{number}"] == list(range(100))


async def test_forward_returns_payload():
    async with Nodes(3) as nodes:
        leader = await nodes.form()
        follower = nodes[next(name for name in nodes.names if name != leader.id)]
        command = {"op": "put", "key": "k", "value": 1}
        with pytest.raises(WriteForwardToLeader) as error:
            await follower.client_write(command)
        assert error.value.payload is command
        assert error.value.leader == leader.id == await follower.current_leader()
        with pytest.raises(ReadForwardToLeader) as error:
            await follower.client_read()
        assert error.value.leader == leader.id


async def test_a_write_in_flight_when_its_leader_steps_down_is_unknown():
    async with Nodes(3) as nodes:
        leader = await nodes.form()
        nodes.wires.cut = {leader.id}
        with pytest.raises(LeadershipLost, match="deposed before the write was committed"):
            await leader.client_write("x")
        with pytest.raises(ClientReadError):
            await leader.client_read()
        other = await nodes.leader()
        assert other is not leader


async def test_past_the_limits_of_what_is_uncommitted_writes_are_refused():
    async with Nodes(3, max_uncommitted_entries=10, election_timeout_min=2000, election_timeout_max=3000) as nodes:
        leader = await nodes.form()
        last = (await leader.client_write("committed")).index
        nodes.wires.cut = {leader.id}
        waiting = [asyncio.ensure_future(leader.client_write(number)) for number in range(10)]
        await nodes.wait_for(leader.id, lambda metrics: metrics.last_log_index == last + 10)
        with pytest.raises(Overloaded, match="10 entries are not committed yet"):
            await leader.client_write("one too many")
        assert not any(write.done() for write in waiting)
        nodes.wires.cut = set()
        await asyncio.gather(*waiting)
        await leader.client_write("welcome again")
        assert nodes.machines[leader.id].commands == ["committed", *range(10), "welcome again"]


async def test_a_caller_that_gives_up_hurts_nobody():
    async with Nodes(3) as nodes:
        leader = await nodes.form()
        write = asyncio.ensure_future(leader.client_write("given up"))
        await asyncio.sleep(0)
        write.cancel()
        assert (await leader.client_write("next")).data == 2


# -- restart ----------------------------------------------------------------------------------------------------------


async def test_single_node_restart_resumes_leader():
    async with Nodes(1) as nodes:
        leader = await nodes.form()
        await leader.client_write("x")
        await leader.shutdown()
        again = nodes.start("n1")
        await nodes.leader()
        await again.client_read()
        assert nodes.machines["n1"].commands == ["x"]


async def test_a_cluster_restarts_with_all_that_was_acknowledged():
    async with Nodes(3) as nodes:
        leader = await nodes.form()
        for number in range(10):
            await leader.client_write(number)
        for name in nodes.names:
            await nodes[name].shutdown()
        for name in nodes.names:
            nodes.start(name)
        leader = await nodes.leader()
        await leader.client_read()
        assert nodes.machines[leader.id].commands == list(range(10))


# -- storage that fails -----------------------------------------------------------------------------------------------


class FailingStorage:
    """A storage of which one method fails, from the moment on that it is told to."""

    def __init__(self, inner: RaftStorage, method: str, *, armed: bool = False) -> None:
        self.inner, self.method, self.armed = inner, method, armed

    def check(self, method: str) -> None:
        if self.armed and method == self.method:
            raise OSError(5, "Input/output error")

    def get_initial_state(self) -> StoredState:
        self.check("get_initial_state")
        return self.inner.get_initial_state()

    def persist(self, hard_state: HardState | None, truncate_from: int | None, entries: Sequence[Entry]) -> None:
        self.check("persist")
        if entries:
            self.check("persist entries")
        if hard_state is not None:
            self.check("persist hard state")
        self.inner.persist(hard_state, truncate_from, entries)

    def apply_to_state_machine(self, entries: Sequence[Entry]) -> Sequence[Any]:
        self.check("apply_to_state_machine")
        return self.inner.apply_to_state_machine(entries)

    def close(self) -> None:
        self.check("close")
        self.inner.close()


VOTE = VoteRequest(99, "n2", 99, 99)
HEARTBEAT = AppendEntriesRequest(99, "n2", 0, 0, (), 0)

CALLS = {
    "append_entries": lambda raft: raft.append_entries(HEARTBEAT),
    "vote": lambda raft: raft.vote(VOTE),
    "pre_vote": lambda raft: raft.pre_vote(VOTE),
    "client_read": lambda raft: raft.client_read(),
    "client_write": lambda raft: raft.client_write("x"),
    "initialize": lambda raft: raft.initialize({"n1"}),
}


async def check_that_it_is_shut_down(nodes: Nodes, name: str) -> None:
    for call in CALLS.values():
        with pytest.raises(ShuttingDown):
            await call(nodes[name])
    metrics = nodes[name].metrics().current
    assert (metrics.state, metrics.current_leader) == (State.SHUTDOWN, None)


@pytest.mark.parametrize("method", ["persist", "persist entries", "apply_to_state_machine"])
async def test_storage_error_shuts_down(method):
    async with Nodes(1) as nodes:
        leader = await nodes.form()
        await leader.client_write("before")
        await leader.shutdown()
        wrapped: list[FailingStorage] = []
        leader = nodes.start("n1", lambda inner: wrapped.append(FailingStorage(inner, method)) or wrapped[0])
        await nodes.leader()
        await leader.client_read()
        wrapped[0].armed = True
        with pytest.raises((ShuttingDown, LeadershipLost)):
            await leader.client_write("lost")
        with pytest.raises(RaftStorageError, match="Input/output error"):
            await leader.wait_closed()
        await check_that_it_is_shut_down(nodes, "n1")


async def test_storage_error_shuts_down_while_voting():
    async with Nodes(1) as nodes:
        await nodes["n1"].shutdown()
        raft = nodes.start("n1", lambda inner: FailingStorage(inner, "persist hard state", armed=True))
        with pytest.raises(ShuttingDown):
            await raft.vote(VOTE)
        with pytest.raises(RaftStorageError, match="Input/output error"):
            await raft.wait_closed()
        assert nodes.stores["n1"].get_initial_state().hard_state == HardState()
        await check_that_it_is_shut_down(nodes, "n1")


async def test_storage_error_shuts_down_at_the_start():
    async with Nodes(1) as nodes:
        await nodes["n1"].shutdown()
        raft = nodes.start("n1", lambda inner: FailingStorage(inner, "get_initial_state", armed=True))
        with pytest.raises(RaftStorageError, match="Input/output error"):
            await raft.wait_closed()
        await check_that_it_is_shut_down(nodes, "n1")


async def test_a_storage_that_cannot_be_closed_is_let_go():
    async with Nodes(1) as nodes:
        await nodes["n1"].shutdown()
        raft = nodes.start("n1", lambda inner: FailingStorage(inner, "close", armed=True))
        await raft.shutdown()
        await raft.wait_closed()


async def test_a_follower_whose_storage_fails_leaves_a_cluster_that_works():
    async with Nodes(3) as nodes:
        leader = await nodes.form()
        name = next(name for name in nodes.names if name != leader.id)
        await nodes[name].shutdown()
        wrapped: list[FailingStorage] = []
        follower = nodes.start(
            name, lambda inner: wrapped.append(FailingStorage(inner, "persist entries")) or wrapped[0]
        )
        await nodes.leader()
        wrapped[0].armed = True
        await leader.client_write("x")
        with pytest.raises(RaftStorageError):
            await follower.wait_closed()
        assert (await leader.client_write("y")).data == 2


# -- shutdown ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_after_shutdown_says_so(call):
    async with Nodes(1) as nodes:
        await nodes.form()
        await nodes["n1"].shutdown()
        with pytest.raises(RaftError, match="The node is shutting down"):
            await CALLS[call](nodes["n1"])


async def test_shutdown_is_idempotent():
    async with Nodes(1) as nodes:
        raft = await nodes.form()
        await asyncio.gather(raft.shutdown(), raft.shutdown())
        await raft.shutdown()
        await raft.wait_closed()
        await check_that_it_is_shut_down(nodes, "n1")


async def test_shutdown_answers_everyone_who_waits():
    async with Nodes(3, election_timeout_min=2000, election_timeout_max=3000) as nodes:
        leader = await nodes.form()
        await leader.client_write("committed")
        nodes.wires.cut = {leader.id}
        write = asyncio.ensure_future(leader.client_write("never"))
        read = asyncio.ensure_future(leader.client_read())
        last = leader.metrics().current.last_log_index
        await nodes.wait_for(leader.id, lambda metrics: metrics.last_log_index == last + 1)
        late = asyncio.ensure_future(leader.client_write("not even seen"))
        await asyncio.sleep(0)
        await leader.shutdown()
        answers = await asyncio.gather(write, read, late, return_exceptions=True)
        assert isinstance(answers[0], LeadershipLost), "it was appended: nobody knows"
        assert isinstance(answers[1], ShuttingDown)
        assert isinstance(answers[2], (ShuttingDown, LeadershipLost))


# -- metrics ----------------------------------------------------------------------------------------------------------


async def test_metrics_can_be_looked_at_and_watched():
    async with Nodes(1) as nodes:
        watch = nodes["n1"].metrics()
        assert watch.current == RaftMetrics("n1", State.NON_VOTER)
        change = asyncio.ensure_future(watch.changed())
        await asyncio.sleep(0)
        assert not change.done()
        await nodes["n1"].initialize({"n1"})
        await change
        leading = await watch.wait_for(lambda metrics: metrics.state is State.LEADER and metrics.last_applied == 1)
        assert leading == RaftMetrics("n1", State.LEADER, 1, 1, 1, 1, "n1", MembershipConfig(("n1",)))
        assert await watch.wait_for(lambda metrics: metrics.current_term == 1) is watch.current, "true already"


async def test_whoever_watches_sees_the_shutdown():
    async with Nodes(1) as nodes:
        watch = nodes["n1"].metrics()
        seen = asyncio.ensure_future(watch.wait_for(lambda metrics: metrics.state is State.SHUTDOWN))
        await asyncio.sleep(0)
        await nodes["n1"].shutdown()
        assert (await seen).id == "n1"


async def test_nobody_waits_for_what_will_never_be():
    async with Nodes(1) as nodes:
        watch = nodes["n1"].metrics()
        waiting = asyncio.ensure_future(watch.wait_for(lambda metrics: metrics.state is State.LEADER))
        await asyncio.sleep(0)
        await nodes["n1"].shutdown()
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            await watch.changed()
