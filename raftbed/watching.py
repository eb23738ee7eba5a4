"""What goes beside the clients and only looks: samples of the nodes' status, and the controller's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from raftbed.model import SECOND
from raftbed.store import StatusSample
from raftbed.systems.base import System

_SAMPLE_INTERVAL = 0.25  # seconds between two samples of a node's status
_SAMPLE_SHARE = 4  # a slow node, for which an answer is work, is left alone for so many times as long as it took
_STALL = 0.25  # seconds of delay of the controller's event loop that are worth a record


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
