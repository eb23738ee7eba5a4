"""Clients with sessions: each writes one thing after another, and repeats a write until it is acknowledged.

Raw HTTP over keep-alive connections, as in `load.py`, but the answers are read: a client follows hints to the leader
and goes from node to node otherwise, always with the same client name and serial for the same write.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

PATIENCE = 1.0
"""Seconds that one attempt may take."""
_PAUSE = 0.01
_LIMIT = 1 << 21


@dataclass
class Tally:
    """What the clients saw, together.

    Attributes:
        acknowledged: when each write was, and how long it had taken from its first attempt; in order.
        attempts: requests sent.
        wrong: answers that cannot be if each write happens once and none is lost.
    """

    acknowledged: list[tuple[float, float]] = field(default_factory=list)
    attempts: int = 0
    wrong: list[str] = field(default_factory=list)

    def longest_gap(self, begin: float, end: float) -> float:
        """The longest time within [begin, end] in which no write was acknowledged."""
        times = [begin, *(at for at, _ in self.acknowledged if begin <= at <= end), end]
        return max(later - earlier for earlier, later in pairwise(times))


class SessionClient:
    """One client.

    Parameters:
        name: of its session.
        ports: of all nodes.
        make: path and body of its write number 1, 2, ...; client and serial are added.
        tally: where it says what it saw.
    """

    def __init__(
        self, name: str, ports: list[int], make: Callable[[int], tuple[str, Mapping[str, Any]]], tally: Tally
    ) -> None:
        self.name = name
        self._ports = ports
        self._make = make
        self._tally = tally
        self._at = 0
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.serial = 0
        self.times: list[float] = []  # at which its writes were acknowledged

    async def run(self, until: asyncio.Event, *, pause: float = 0.0, limit: int = 1_000_000) -> None:
        """Write until told to stop, and then until the last write is acknowledged."""
        while not until.is_set() and self.serial < limit:
            await self.write()
            if pause:
                await asyncio.sleep(pause)
        self._drop()

    async def write(self) -> None:
        """The next write, however often it has to be sent."""
        self.serial += 1
        path, content = self._make(self.serial)
        body = {**content, "client": self.name, "serial": self.serial}
        begun = time.monotonic()
        while True:
            self._tally.attempts += 1
            status, answer = await self._attempt(path, body)
            if status == 200:
                break
            if status == 409:
                self._tally.wrong.append(f"{self.name}, serial {self.serial}: {answer}")
                break
            await self._elsewhere(answer.get("leader_address"))
        now = time.monotonic()
        self.times.append(now)
        self._tally.acknowledged.append((now, now - begun))

    async def _elsewhere(self, leader: str | None) -> None:
        """Go to the leader, where it is known, else on to the next node after a short time."""
        self._drop()
        port = int(leader.rpartition(":")[2]) if leader else 0
        if port in self._ports and port != self._ports[self._at]:
            self._at = self._ports.index(port)
            return
        self._at = (self._at + 1) % len(self._ports)
        await asyncio.sleep(_PAUSE)

    async def _attempt(self, path: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """Status and answer; status 0 where there was none."""
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Raftbed-Timeout: {PATIENCE:g}\r\n"
        try:
            async with asyncio.timeout(PATIENCE + 0.5):
                if self._connection is None:
                    port = self._ports[self._at]
                    self._connection = await asyncio.open_connection("127.0.0.1", port, limit=_LIMIT)
                reader, writer = self._connection
                writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
                return await _answer(reader)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            self._drop()
            return 0, {}

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection[1].transport.abort()
            self._connection = None


async def _answer(reader: asyncio.StreamReader) -> tuple[int, Mapping[str, Any]]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    lengths = [int(line[15:]) for line in lines if line.lower().startswith("content-length:")]
    content = json.loads(await reader.readexactly(lengths[0]))
    return int(lines[0].split()[1]), content
