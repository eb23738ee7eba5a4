"""What becomes of a command on its way to the state machines: all get the same. Whole nodes, real time, no sockets."""

from __future__ import annotations

from typing import Any

import pytest
from in_process import ListMachine, Nodes

from raftbed.nodes.raft import (
    MAX_DEPTH,
)


async def test_a_command_that_cannot_be_stored_hurts_only_who_sent_it():
    async with Nodes(1) as nodes:
        leader = await nodes.form()
        for command in (object(), 1 << 70, "\ud800", nested(MAX_DEPTH + 1), nested(5000), {"deep": nested(MAX_DEPTH)}):
            with pytest.raises((TypeError, OverflowError, ValueError)):
                await leader.client_write(command)
        assert (await leader.client_write("fine")).data == 1


def nested(depth: int) -> list[Any]:
    """Lists within each other."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


async def test_a_command_may_be_nested_as_deep_as_every_node_can_read_it():
    async with Nodes(3) as nodes:
        leader = await nodes.form()
        command = {"deep": nested(MAX_DEPTH - 1), "long": "x" * 1000}
        await nodes.applied((await leader.client_write(command)).index)
        assert [machine.commands for machine in nodes.machines.values()] == [[command]] * 3


class Appending(ListMachine):
    """Changes what it was given with a command, as a careless application might."""

    def apply(self, command: Any) -> int:
        command["list"].append(len(self.commands))
        return super().apply(command)


async def test_a_state_machine_that_changes_commands_changes_no_log():
    async with Nodes(3, machine=Appending) as nodes:
        leader = await nodes.form()
        late = next(name for name in nodes.names if name != leader.id)
        nodes.wires.cut = {late}
        for _ in range(3):
            written = await leader.client_write({"list": []})
        nodes.wires.cut = set()  # it is sent what the leader has applied
        await nodes.applied(written.index)
        assert [machine.commands for machine in nodes.machines.values()] == [[{"list": [n]} for n in range(3)]] * 3


async def test_all_state_machines_are_given_what_msgpack_makes_of_a_command():
    async with Nodes(3) as nodes:
        leader = await nodes.form()
        command = {"tuple": (1, 2), "set": {3}}
        write = leader.begin_write(command)
        command["tuple"] = "changed by the caller, later"
        await nodes.applied((await write).index)
        assert [machine.commands for machine in nodes.machines.values()] == [[{"tuple": [1, 2], "set": [3]}]] * 3
