"""What only looks at a run: a glance for the user, samples of the nodes' status, the delays of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from raftbed.model import SECOND
from raftbed.store import StatusSample
from raftbed.systems.base import System

_SAMPLE_INTERVAL = 0.25  # seconds between two samples of a node's status
_SAMPLE_SHARE = 4  # a slow node, for which an answer is work, is left alone for so many times as long as it took
_STALL = 0.25  # seconds of delay of the controller's event loop that are worth a record


@dataclass(frozen=True, slots=True)
class Progress:
    """A glance at a run under way, for the progress line.

    Attributes:
        elapsed: seconds since the run started.
        phase: its name.
        time_limit: planned seconds of the clients' phase.
        ok, fail, info: operations so far.
        ok_rate: acknowledged operations per second over the last two seconds.
        faults: what strikes now.
        leader: who leads, as far as is known.
    """

    elapsed: float
    phase: str
    time_limit: float
    ok: int
    fail: int
    info: int
    ok_rate: float
    faults: tuple[str, ...]
    leader: str | None


async def watch_loop(clock: Callable[[], int], tell: Callable[[float], None]) -> None:
    """Tell how long the event loop stood still, whenever it did, until cancelled.

    Parameters:
        clock: nanoseconds since the start of the run.
        tell: takes seconds.
    """
    while True:
        before = clock()
        await asyncio.sleep(0.05)
        late = (clock() - before) / SECOND - 0.05
        if late > _STALL:
            tell(late)


async def sample_status(
    system: System, nodes: Sequence[str], clock: Callable[[], int], tell: Callable[[StatusSample], None]
) -> None:
    """Ask every node for its status, again and again, until cancelled.

    Parameters:
        system: whose nodes these are.
        nodes: whom to ask.
        clock: nanoseconds since the start of the run.
        tell: takes each sample, with the time at which it came.
    """

    async def one(node: str) -> None:
        while True:
            asked = clock()
            sample = await system.status(node)
            took = (clock() - asked) / SECOND
            tell(replace(sample, time=clock()))
            await asyncio.sleep(max(_SAMPLE_INTERVAL, took * _SAMPLE_SHARE))

    async with asyncio.TaskGroup() as group:
        for node in nodes:
            group.create_task(one(node))
