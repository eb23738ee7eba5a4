"""A nemesis with everything around it faked, and a clock that goes on when everybody sleeps."""

import asyncio
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from raftbed.errors import FaultError, HostError
from raftbed.faults.base import LeaderSeen
from raftbed.faults.nemesis import Nemesis
from raftbed.model import SECOND, FaultEvent, FaultStep, Op

NODES = ("n1", "n2", "n3")


class Clock:
    """Time that goes on when everybody sleeps."""

    def __init__(self) -> None:
        self.now = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def __call__(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self.now + int(seconds * SECOND), self._count, future))
        await future

    async def run(self, work):
        """Await `work`, waking the next sleeper whenever nothing else is left to do."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                for _ in range(20):
                    await asyncio.sleep(0)
                if not task.done() and self._sleepers:
                    self.now, _, future = heapq.heappop(self._sleepers)
                    if not future.done():
                        future.set_result(None)
        except asyncio.CancelledError:
            await cancelled(task)
            raise
        return task.result()


@dataclass
class FakeFault:
    """A fault that does what the test says, and keeps what it was asked."""

    calls: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    heal_failures: int = 0

    async def inject(self, step: FaultStep, order: Sequence[str]) -> Mapping[str, Any]:
        self.calls.append(("inject", step.id, tuple(order)))
        if "inject" in self.failing:
            raise HostError("the wire is hot.", host="n2")
        return {"nodes": list(order)[:1], "mechanism": "fake"}

    async def prove(self, step: FaultStep) -> Mapping[str, Any]:
        if "prove" in self.failing:
            raise FaultError("n1 reached n2.")
        return {"probe": "cut"}

    async def heal(self, step: FaultStep) -> Mapping[str, Any]:
        self.calls.append(("heal", step.id, ()))
        if self.heal_failures:
            self.heal_failures -= 1
            raise FaultError("still cut.")
        return {"probe": "open"}


class Control:
    """Processes that obey."""

    def __init__(self) -> None:
        self.running = set(NODES)
        self.seen: LeaderSeen | None = LeaderSeen("n3", 4, {})

    async def kill(self, node):
        self.running.discard(node)
        return {"pid": 1}

    async def start(self, node):
        self.running.add(node)
        return {"pid": 2}

    async def is_running(self, node):
        return node in self.running

    async def is_answering(self, node, *, timeout):
        return node in self.running

    async def leader(self):
        return self.seen


class Bench:
    """A nemesis with everything around it faked."""

    def __init__(self, fault: FakeFault | None = None) -> None:
        self.clock, self.fault, self.control = Clock(), fault or FakeFault(), Control()
        self.ledger: list[FaultEvent] = []
        self.history: list[Op] = []
        self.nemesis = Nemesis(
            hosts={},
            control=self.control,
            clock=self.clock,
            record_event=self.ledger.append,
            record_op=self.history.append,
            sleep=self.clock.sleep,
            faults={"partition": self.fault},
        )

    def run(self, *steps: FaultStep):
        return self.clock.run(self.nemesis.run(steps, start=SECOND))

    def states(self):
        return [(event.fault, event.state, event.time / SECOND) for event in self.ledger]


def step(id_="f01", shape="halves", at=1.0, until=3.0):
    return FaultStep(id_, "partition", shape, at, until, NODES)


async def cancelled(task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
