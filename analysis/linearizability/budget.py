"""How long, and with how much memory, a search may go on."""

from __future__ import annotations

import os
import time
from typing import Final, Literal

Limit = Literal["time", "memory"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class OutOfBudgetError(Exception):
    """A search gave up.

    Parameters:
        limit: "time" or "memory".
    """

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.limit: Limit = limit


def resident_memory() -> int:
    """Bytes of this process that are in memory now; 0 where /proc cannot tell."""
    try:
        with open("/proc/self/statm", "rb") as stream:
            return int(stream.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


class Budget:
    """A deadline and a ceiling of memory.

    Parameters:
        seconds: from now on; None for no limit.
        memory: bytes of resident memory of this process; None for no limit.
    """

    def __init__(self, seconds: float | None = None, memory: int | None = None) -> None:
        self.deadline = None if seconds is None else time.monotonic() + seconds
        self.memory = memory

    def remaining(self) -> float:
        """Seconds left; infinite without a limit."""
        return float("inf") if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def check(self) -> None:
        """Raise `OutOfBudgetError` when a limit is passed. Costs some microseconds: call it now and then."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfBudgetError("time")
        if self.memory is not None and resident_memory() > self.memory:
            raise OutOfBudgetError("memory")

    def part(self, seconds: float) -> Budget:
        """A budget of at most so many seconds within this one."""
        return Budget(min(seconds, self.remaining()), self.memory)
