"""What a write costs the event loop of a leader. Run `python benchmarks/leader_loop.py`; about half a minute.

A node that leads three, whose peers, disk and connections are stand-ins: a peer answers within a millisecond, the disk
writes to memory, a client sends its next request as soon as it has its answer. So what is measured is Python, and
nearly free of what else the machine does: CPU of the process per write, not time. The ratios are of the same round, and
the median over the rounds counts:

    same fields       clients send the same fields of HTTP in every request, as most do
    other fields      each request has a field that no other has (a trace's id, say)
    aiohttp's way     a task for each request, as aiohttp does it (see raftbed/nodes/http_shortcut.py)
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from random import Random
from typing import Any

import uvloop

from raftbed.nodes import http_shortcut
from raftbed.nodes.raft import AppendEntriesRequest, AppendEntriesResponse, Config, Raft, VoteRequest, VoteResponse
from raftbed.nodes.raft.storage_thread import Done
from raftbed.nodes.server import Server
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.storage import MemoryStore, NodeStorage

CASES = ("same fields", "other fields", "aiohttp's way")
_CONFIG = {"election_timeout_min": 1000, "election_timeout_max": 2000, "heartbeat_interval": 100}
_SYNC, _ROUND_TRIP = 0.0008, 0.001  # seconds
_KEYS = 128
_BODY = b'{"value": "' + b"v" * 64 + b'"}'


class Disk:
    """Makes the storage's calls in the loop itself, and says after a while that they are done."""

    def __init__(self, loop: asyncio.AbstractEventLoop, _name: str) -> None:
        self._loop = loop

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        self._loop.call_later(_SYNC, done, function(*arguments), None)

    def end(self) -> None:
        """Nothing is left to be done."""


class Peers:
    """Two peers that grant and take everything."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def _later(self, answer: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._loop.call_later(_ROUND_TRIP, lambda: future.done() or future.set_result(answer))
        return future

    def append_entries(self, target: str, rpc: AppendEntriesRequest) -> asyncio.Future[Any]:
        verified = rpc.prev_log_index + len(rpc.entries)
        return self._later(AppendEntriesResponse(rpc.term, success=True, verified_index=verified))

    def vote(self, target: str, rpc: VoteRequest) -> asyncio.Future[Any]:
        return self._later(VoteResponse(rpc.term, vote_granted=True))

    def pre_vote(self, target: str, rpc: VoteRequest) -> asyncio.Future[Any]:
        return self._later(VoteResponse(rpc.term - 1, vote_granted=True))

    install_snapshot = timeout_now = vote


class Wire(asyncio.Transport):
    """A client's connection. Whoever got its answer is in `clients.ready`."""

    def __init__(self, clients: Clients, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.clients, self.protocol, self.closed = clients, protocol, False
        protocol.connection_made(self)

    def write(self, data: Any) -> None:
        assert data[9:12] == b"200", data
        self.clients.answered(self)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Clients:
    """Each has one request under way."""

    def __init__(self, writes: int, *, other_fields: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = writes
        self._number = 0
        self._other_fields = other_fields
        self._ready: list[Wire] = []
        self.done = self._loop.create_future()

    def answered(self, wire: Wire) -> None:
        """It sends again, in the next turn of the loop."""
        self._left -= 1
        if self._left <= 0:
            if not self.done.done():
                self.done.set_result(None)
            return
        if not self._ready:
            self._loop.call_soon(self._send)
        self._ready.append(wire)

    def begin(self, wires: list[Wire]) -> None:
        """All send their first request."""
        self._ready = wires
        self._send()

    def _send(self) -> None:
        ready, self._ready = self._ready, []
        for wire in ready:
            self._number += 1
            more = b"Traceparent: %d\r\n" % self._number if self._other_fields else b""
            wire.protocol.data_received(
                b"POST /kv/key%d/put HTTP/1.1\r\nHost: 127.0.0.1\r\n%bContent-Length: %d\r\n\r\n%b"
                % (self._number % _KEYS, more, len(_BODY), _BODY)
            )


async def measure(writes: int, connections: int, *, other_fields: bool) -> float:
    """Microseconds of CPU for a write."""
    machine = KeyValueStateMachine()
    config, random = Config.from_mapping("benchmark", _CONFIG), Random(1)
    raft = Raft(
        "n1", config, Peers(), NodeStorage(MemoryStore(), machine, shares_commands=True), random=random, workers=Disk
    )
    await raft.initialize({"n1", "n2", "n3"})
    await raft.metrics().wait_for(lambda metrics: metrics.last_applied > 0)
    server = Server(raft, machine, cluster="benchmark", peers={})
    clients = Clients(writes, other_fields=other_fields)
    make = server.protocols()
    wires = [Wire(clients, make()) for _ in range(connections)]
    await asyncio.sleep(0.1)  # until all connections' tasks wait for a request
    before = time.process_time()
    clients.begin(wires)
    await clients.done
    spent = time.process_time() - before
    for wire in wires:
        wire.protocol.connection_lost(None)
    await raft.shutdown()
    return spent / writes * 1e6


def run(case: str, writes: int, connections: int) -> float:
    """Measure a case in an event loop of its own."""
    usable = http_shortcut.is_usable
    if case == CASES[2]:
        http_shortcut.is_usable = lambda: False
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measure(writes, connections, other_fields=case == CASES[1]))
    finally:
        http_shortcut.is_usable = usable


def main() -> None:
    """Measure all cases by turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of all cases (default: 5)")
    parser.add_argument("--writes", type=int, default=30_000, help="in one measurement (default: 30000)")
    parser.add_argument("--clients", type=int, default=64, help="connections, each with one request (default: 64)")
    options = parser.parse_args()
    if not http_shortcut.is_usable():
        parser.exit(1, "the short way was not tried with the aiohttp that is installed: all cases would be the same\n")
    spent: dict[str, list[float]] = {case: [] for case in CASES}
    for number in range(options.rounds):
        for case in CASES if number % 2 else reversed(CASES):
            spent[case].append(run(case, options.writes, options.clients))
    print("| requests | µs of CPU for a write (range) | against the same fields (range) |")
    print("| --- | ---: | ---: |")
    for case in CASES:
        ratios = [one / base for one, base in zip(spent[case], spent[CASES[0]], strict=True)]
        print(f"| {case} | {median_and_range(spent[case], '.1f')} | {median_and_range(ratios, '.2f')} |")


def median_and_range(values: list[float], form: str) -> str:
    """As a cell of the table."""
    return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
