"""A leader is killed, or hands over, under 64 clients: what is lost, what happens twice, and how long it takes.

Each client counts: it compares-and-sets its own key from n-1 to n, with the serial n. A write that was acknowledged and
lost, or that happened twice, makes the next one meet another value than it must; and at the end every node's log is
played through a state machine that notes which command it executed, and how often.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster.nodes import Nodes
from cluster.sessions import SessionClient, Tally
from cluster.systems import call
from raftbed.nodes.raft import Config
from raftbed.nodes.raft.messages import Normal
from raftbed.nodes.state_machine import KeyValueStateMachine, Result
from raftbed.nodes.storage import open_storage

BOUND = 2 * Config("c").election_timeout_max / 1000 + 1.0
"""Seconds: two election timeouts plus one second."""
_BEFORE, _AFTER = 1.5, 2.5


@dataclass(frozen=True)
class Change:
    """One change of the leader.

    Attributes:
        how: "kill" or "transfer".
        gap: the longest time without an acknowledged write.
        everyone: seconds until every client had an acknowledged write again.
        rate: acknowledged writes per second before it.
    """

    how: str
    gap: float
    everyone: float
    rate: float


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        changes: one after the other.
        writes: acknowledged.
        repeated: commands that are in the log more than once: retries of writes that had been committed.
        wrong: what must not be; empty.
    """

    changes: list[Change]
    writes: int
    repeated: int
    wrong: list[str]


class CountingMachine(KeyValueStateMachine):
    """Notes how often each command of a session came, and how often it was executed."""

    def __init__(self) -> None:
        super().__init__()
        self.came: Counter[tuple[str, int]] = Counter()
        self.executed: Counter[tuple[str, int]] = Counter()

    def apply(self, command: Mapping[str, Any]) -> Result:
        """See `KeyValueStateMachine`."""
        if "client" in command:
            self.came[command["client"], command["serial"]] += 1
        return super().apply(command)

    def execute(self, command: Mapping[str, Any]) -> Result:
        """See `KeyValueStateMachine`."""
        result = super().execute(command)
        if "client" in command and result.outcome == "done":
            self.executed[command["client"], command["serial"]] += 1
        return result


def count_up(client: str, serial: int) -> tuple[str, Mapping[str, Any]]:
    """Write number `serial` of a client."""
    return f"/kv/{client}/cas", {"old": serial - 1 if serial > 1 else None, "new": serial}


async def drive(nodes: Nodes, clients: int, changes: list[str]) -> tuple[list[Change], list[SessionClient], Tally]:
    """Load, and change the leader under it."""
    tally, stop, seen = Tally(), asyncio.Event(), []
    everyone = [
        SessionClient(name, list(nodes.ports), partial(count_up, name), tally)
        for name in (f"client{number}" for number in range(clients))
    ]
    running = [asyncio.ensure_future(client.run(stop)) for client in everyone]
    for how in changes:
        await asyncio.sleep(_BEFORE)
        await asyncio.to_thread(nodes.find_leader)
        led, begun = nodes.leader, time.monotonic()
        if how == "kill":
            nodes.processes[led].send_signal(signal.SIGKILL)
        else:
            await asyncio.to_thread(call, nodes.ports[led], "/admin/transfer", {})
        await asyncio.sleep(_AFTER)
        rate = sum(begun - 1 <= at <= begun for at, _ in tally.acknowledged)
        lagging = max(_first_after(client, begun) for client in everyone)
        seen.append(Change(how, tally.longest_gap(begun, time.monotonic()), lagging, rate))
        if how == "kill":
            nodes.processes[led].wait(10)
            await asyncio.to_thread(nodes.restart, led)
            await asyncio.to_thread(nodes.caught_up)
    stop.set()
    await asyncio.wait_for(asyncio.gather(*running), 20)
    return seen, everyone, tally


def _first_after(client: SessionClient, moment: float) -> float:
    """Seconds from a moment until the client's next acknowledged write."""
    return next((at - moment for at in client.times if at > moment), float("inf"))


def audit(nodes: Nodes, clients: list[SessionClient]) -> tuple[int, list[str]]:
    """Play every node's log; nodes have ended. Returns how many commands came twice, and what must not be."""
    wrong: list[str] = []
    repeated, furthest = 0, None
    for number in range(nodes.size):
        machine = CountingMachine()
        storage = open_storage(Path(nodes.directory / f"n{number + 1}"), machine)
        entries = storage.get_initial_state().entries
        storage.close()
        for entry in entries:
            if isinstance(entry.payload, Normal):
                machine.apply(entry.payload.data)
        twice = [command for command, times in machine.executed.items() if times != 1]
        wrong += [f"n{number + 1} executed {command} more than once" for command in twice]
        repeated = max(repeated, sum(times > 1 for times in machine.came.values()))
        if furthest is None or len(machine.executed) > len(furthest.executed):
            furthest = machine
    assert furthest is not None
    for client in clients:
        missing = [serial for serial in range(1, client.serial + 1) if not furthest.executed[client.name, serial]]
        wrong += [f"{client.name}, serial {serial}: acknowledged, and in no log" for serial in missing]
    return repeated, wrong


def run(directory: Path, size: int, clients: int, changes: list[str]) -> Outcome:
    """Changes of the leader in one cluster, whose log is kept whole for the audit."""
    nodes = Nodes(directory / f"of-{size}", size, {"snapshot_policy": None})
    try:
        nodes.start()
        seen, everyone, tally = asyncio.run(drive(nodes, clients, changes))
        nodes.caught_up()
        nodes.find_leader()
        wrong = list(tally.wrong)
        for client in everyone:
            value = call(nodes.ports[nodes.leader], f"/kv/{client.name}")["value"]
            if value != client.serial:
                wrong.append(f"{client.name} had {client.serial} acknowledged, and reads {value}")
    finally:
        nodes.stop()
    repeated, found = audit(nodes, everyone)
    return Outcome(seen, len(tally.acknowledged), repeated, wrong + found)
