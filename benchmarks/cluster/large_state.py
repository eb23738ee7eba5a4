"""Much state in a running cluster: filled, written to a snapshot, sent to a joiner, read back after a restart.

A load goes on all the while. Three things are watched: the most memory that each process ever had, as the kernel
counts it; the term, which an election would raise; and how long a node takes to answer `GET /status`, every few
milliseconds: what keeps it from that keeps it from its heartbeats.
"""

from __future__ import annotations

import asyncio
import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from cluster.nodes import MIB, Nodes
from cluster.sessions import SessionClient, Tally
from cluster.systems import call

VALUE = 4000
"""Bytes of a value."""
_FILLERS, _PAUSE = 16, 0.02
_LOOK = 0.02


class Watch:
    """Asks a node for its status again and again, and notes the longest time that it took.

    Parameters:
        port: of the node.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self.longest = 0.0
        self.terms: set[int] = set()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._stop.wait(_LOOK):
            begun = time.monotonic()
            try:
                connection.request("GET", "/metrics")
                said = connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
                continue
            self.longest = max(self.longest, time.monotonic() - begun)
            self.terms.add(int(said.split(b"\nraft_term ")[1].split(b"\n")[0]))
        connection.close()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()


def value_of(random: Random) -> str:
    """One that no other resembles."""
    return random.randbytes(VALUE // 2).hex()


def writer(name: str, keys: list[str], nodes: Nodes, tally: Tally) -> SessionClient:
    """A client that writes its keys, one after the other, again and again."""
    random = Random(name)

    def make(serial: int) -> tuple[str, Mapping[str, Any]]:
        return f"/kv/{keys[(serial - 1) % len(keys)]}/put", {"value": value_of(random)}

    return SessionClient(name, list(nodes.ports), make, tally)


async def fill(nodes: Nodes, count: int) -> None:
    """Write every key once."""
    tally, never = Tally(), asyncio.Event()
    shares = [[f"key{number}" for number in range(first, count, _FILLERS)] for first in range(_FILLERS)]
    fillers = [writer(f"filler{number}", keys, nodes, tally) for number, keys in enumerate(shares)]
    runs = [filler.run(never, limit=len(keys)) for filler, keys in zip(fillers, shares, strict=True)]
    await asyncio.gather(*runs)


class Load:
    """Clients that overwrite values with pauses, in a thread of their own.

    Parameters:
        nodes: the cluster.
        count: how many keys there are.
        clients: how many write.
    """

    def __init__(self, nodes: Nodes, count: int, clients: int) -> None:
        self.tally = Tally()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        keys = [f"key{number}" for number in range(count)]
        self._clients = [writer(f"loader{n}", keys[n::clients], nodes, self.tally) for n in range(clients)]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._loop.run_until_complete(asyncio.wait_for(self._write(), 600))

    async def _write(self) -> None:
        await asyncio.gather(*(client.run(self._stop, pause=_PAUSE) for client in self._clients))

    def stop(self) -> None:
        """Write no more."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        if not self._thread.is_alive():  # else it waits for nodes that are gone, and ends with this process
            self._loop.close()


def operate(nodes: Nodes, *arguments: str) -> None:
    """The operators' command line, at the leader."""
    leader = f"127.0.0.1:{nodes.ports[nodes.leader]}"
    command = [sys.executable, "-m", "raftbed.nodes", *arguments, "--node", leader, "--timeout", "120"]
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=130, check=True)


def timed(what: str, work: Callable[[], object]) -> None:
    """Do something and print how long it took."""
    begun = time.monotonic()
    result = work()
    print(f"{what}: {time.monotonic() - begun:.1f} s{'' if result is None else f' ({result})'}", flush=True)


def restarted(nodes: Nodes, number: int) -> str:
    """End a node and start it again; says what it had at the end."""
    peak = nodes.peak_memory(number)
    nodes.end(number, signal.SIGTERM)
    seconds = nodes.restart(number)
    nodes.caught_up(60)
    return f"answers after {seconds:.1f} s; before it, it had had at most {peak:,.0f} MiB"


def snapshot(nodes: Nodes) -> str:
    """Have the leader take one."""
    operate(nodes, "snapshot")
    index = call(nodes.ports[nodes.leader], "/status")["snapshot_index"]
    (file,) = (nodes.directory / f"n{nodes.leader + 1}" / "snapshots").glob(f"{index:020d}-*")
    return f"{file.stat().st_size / MIB:,.0f} MiB"


def run(directory: Path, megabytes: int, clients: int) -> bool:
    """Everything; returns whether the bounds hold."""
    count = megabytes * 1_000_000 // VALUE
    state = count * VALUE / MIB
    nodes = Nodes(directory, 3)
    watches: list[Watch] = []
    load = None
    try:
        nodes.start()
        terms = set(nodes.ask_all(lambda status: status["term"]))
        watches += [Watch(port) for port in nodes.ports]
        timed(f"{count:,} values of {VALUE} bytes written", lambda: asyncio.run(fill(nodes, count)))
        load, begun = Load(nodes, count, clients), time.monotonic()
        timed("snapshot", lambda: snapshot(nodes))
        joiner = nodes.join_empty()
        watches.append(Watch(nodes.ports[joiner]))
        address = f"n{joiner + 1}=127.0.0.1:{nodes.ports[joiner]}"
        timed("joiner added and brought up", lambda: operate(nodes, "add-non-voter", address))
        timed("joiner made a voter", lambda: operate(nodes, "change-membership", "n1", "n2", "n3", address))
        follower = next(number for number in range(3) if number != nodes.leader)
        peaks = {follower: nodes.peak_memory(follower), joiner: nodes.peak_memory(joiner)}
        timed(f"n{follower + 1} restarted", lambda: restarted(nodes, follower))
        timed(f"joiner n{joiner + 1} restarted", lambda: restarted(nodes, joiner))
        load.stop()
        writes, seconds, load = load.tally, time.monotonic() - begun, None
        nodes.caught_up()
        for number in range(4):
            peaks[number] = max(peaks.get(number, 0.0), nodes.peak_memory(number))
    finally:
        if load is not None:
            load.stop()
        for watch in watches:
            watch.stop()
        nodes.stop()
    print(f"load meanwhile: {len(writes.acknowledged) / seconds:,.0f} writes per second, the slowest", end=" ")
    print(f"{1e3 * max((took for _, took in writes.acknowledged), default=0.0):,.0f} ms")
    print("longest answer to a look at a node:", ", ".join(f"{1e3 * watch.longest:,.0f} ms" for watch in watches))
    shown = ", ".join(f"n{number + 1} {peak:,.0f} ({peak / state:.2f})" for number, peak in sorted(peaks.items()))
    print(f"peak resident memory, MiB (times the state of {state:,.0f} MiB; bound: 3): {shown}")
    later = set().union(*(watch.terms for watch in watches)) - terms - {0}
    print(f"terms: {sorted(terms)} before, new ones: {sorted(later) or 'none'}; wrong answers: {len(writes.wrong)}")
    return max(peaks.values()) < 3 * state and not later and not writes.wrong and len(writes.acknowledged) > seconds
