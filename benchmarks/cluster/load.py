"""The load generator: raw HTTP/1.1 over keep-alive connections, one request at a time on each, in its own process.

It is as light as Python lets it be, because it shares the machine with what it measures: requests are bytes that were
made beforehand, answers are not parsed beyond their status and length. Reads one JSON object from its standard input
(`Load`), writes one (`Measured`) to its standard output.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import cast

import msgspec
import uvloop

_TICK = os.sysconf("SC_CLK_TCK")
_END_OF_HEAD = b"\r\n\r\n"


class Load(msgspec.Struct, kw_only=True):
    """What to do.

    Attributes:
        host: of the node that is driven.
        port: of it.
        requests: whole requests, sent by turns.
        clients: connections, each with one request under way.
        warmup: seconds before the measurement.
        seconds: of the measurement.
        limit: operations at most.
        pids: processes whose CPU time is measured, the driven node's first.
    """

    host: str
    port: int
    requests: list[bytes]
    clients: int
    warmup: float
    seconds: float
    limit: int
    pids: list[int]


class Measured(msgspec.Struct, kw_only=True):
    """What came of it. Times are seconds; CPU is seconds of CPU in a second, of one core."""

    operations: int
    failed: int
    seconds: float
    p50: float
    p99: float
    cpu: list[float]
    generator_cpu: float
    error: str | None = None

    @property
    def rate(self) -> float:
        """Operations per second."""
        return self.operations / self.seconds


class Run:
    """The clients' common state."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.latencies: list[float] = []
        self.failed = 0
        self.started = 0
        self.error: str | None = None
        self.stopped = asyncio.get_running_loop().create_future()

    def fail(self, what: str) -> None:
        self.failed += 1
        self.error = self.error or what

    def stop(self) -> None:
        if not self.stopped.done():
            self.stopped.set_result(None)


class Client(asyncio.Protocol):
    """One connection: sends, waits for the whole answer, sends again."""

    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.requests = run.load.requests
        self.next = number * 7919 % len(self.requests)
        self.sent = 0.0
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        run = self.run
        if run.started >= run.load.limit:
            run.stop()
            return
        run.started += 1
        request = self.requests[self.next]
        self.next = (self.next + 1) % len(self.requests)
        self.sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.buffer:
            data = self.buffer + data
        if not is_whole(data):
            self.buffer = data
            return
        self.buffer = b""
        self.run.latencies.append(time.perf_counter() - self.sent)
        if data[9:12] != b"200":
            self.run.fail(data[:400].decode("latin-1"))
        self.send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.run.stopped.done():
            self.run.fail(f"connection lost: {error}")
            self.run.stop()


def is_whole(data: bytes) -> bool:
    """An answer of HTTP/1.1 has come to its end."""
    head = data.find(_END_OF_HEAD)
    if head < 0:
        return False
    start = data.find(b"ontent-", 0, head)
    while start >= 0 and data[start + 7 : start + 13].lower() != b"length":
        start = data.find(b"ontent-", start + 7, head)
    if start >= 0:
        end = data.find(b"\r\n", start)
        return len(data) >= head + 4 + int(data[start + 14 : end])
    return data.endswith(b"0\r\n\r\n", head + 4)  # chunked


def cpu_seconds(pids: list[int]) -> list[float]:
    """User and system time of each process."""
    spent = []
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        spent.append((int(fields[11]) + int(fields[12])) / _TICK)
    return spent


async def drive(load: Load) -> Measured:
    """Do the work."""
    loop = asyncio.get_running_loop()
    run = Run(load)
    clients = []
    for number in range(load.clients):
        _, client = await loop.create_connection(lambda number=number: Client(run, number), load.host, load.port)
        clients.append(client)
    for client in clients:
        client.send()
    await asyncio.wait([run.stopped], timeout=load.warmup)
    run.latencies, cpu = [], cpu_seconds(load.pids)
    own, start = time.process_time(), time.perf_counter()
    await asyncio.wait([run.stopped], timeout=load.seconds)
    latencies = sorted(run.latencies)
    seconds, own = time.perf_counter() - start, time.process_time() - own
    cpu = [after - before for before, after in zip(cpu, cpu_seconds(load.pids), strict=True)]
    run.stop()
    for client in clients:
        client.transport.abort()
    return Measured(
        operations=len(latencies),
        failed=run.failed,
        seconds=seconds,
        p50=latencies[len(latencies) // 2] if latencies else float("nan"),
        p99=latencies[len(latencies) * 99 // 100] if latencies else float("nan"),
        cpu=[spent / seconds for spent in cpu],
        generator_cpu=own / seconds,
        error=run.error,
    )


def main() -> None:
    """Read what to do, do it, tell."""
    load = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Load)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.stdout.buffer.write(msgspec.msgpack.encode(runner.run(drive(load))))


if __name__ == "__main__":
    main()
