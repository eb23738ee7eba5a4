"""How a user ends a run early: once, so that everything is put in order first; twice, so that it ends now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


class StopSignal:
    """How the user's Ctrl-C reaches the run: the first asks it to end early, the second to end now.

    Attributes:
        requested: the run is to end early.
        urgent: it is to end now.
    """

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self.urgent = asyncio.Event()

    def interrupt(self) -> None:
        """Take one Ctrl-C."""
        (self.urgent if self.requested.is_set() else self.requested).set()


class StoppedAtOnce(Exception):
    """The user does not wait for what is under way; no error, and nothing to be told as one."""


async def unless(signal: asyncio.Event, work: Awaitable[_T], *, patience: float | None = None) -> _T:
    """Await `work`, but no longer than until `signal` is set.

    Parameters:
        signal: ends it.
        work: is cancelled then.
        patience: seconds for what is cancelled to put its things in order; by default as long as it takes.

    Raises:
        StoppedAtOnce: the signal came first; `work` is cancelled.
    """
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(signal.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise StoppedAtOnce
    finally:
        waiter.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=patience)
            if task.done() and not task.cancelled():
                task.exception()  # taken, so that nobody misses it: what was given up may fail as it likes
