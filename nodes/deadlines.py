"""Gives up on many futures at about their deadlines, with few timers.

A timer of the event loop for each request, made and cancelled, costs several microseconds, and nearly none ever fires.
Here one serves all futures whose deadlines lie within the same hundredth of a second.
"""

from __future__ import annotations

import asyncio
from typing import Any

_STEPS = 100
"""Of a second."""


class Deadlines:
    """Futures that are not done by their deadlines fail with TimeoutError; at most a hundredth of a second late.

    Parameters:
        loop: where.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # By the hundredth of a second at whose end they are due; none is empty.
        self._due: dict[int, tuple[set[asyncio.Future[Any]], asyncio.TimerHandle]] = {}

    def set(self, future: asyncio.Future[Any], seconds: float) -> int:
        """Have the future fail so many seconds from now; returns what `clear` wants."""
        step = int((self._loop.time() + seconds) * _STEPS) + 1
        due = self._due.get(step)
        if due is None:
            due = self._due[step] = (set(), self._loop.call_at(step / _STEPS, self._fail, step))
        due[0].add(future)
        return step

    def clear(self, future: asyncio.Future[Any], step: int) -> None:
        """The future is done."""
        due = self._due.get(step)
        if due is None:
            return
        futures, timer = due
        futures.discard(future)
        if not futures:
            timer.cancel()
            del self._due[step]

    def _fail(self, step: int) -> None:
        futures, _ = self._due.pop(step)
        for future in futures:
            if not future.done():
                future.set_exception(TimeoutError())
