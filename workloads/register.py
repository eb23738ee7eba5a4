"""Workload ``register``: many independent registers, read, written and compared-and-set.

No value is written twice in a run, so that each value names the operation that wrote it and the history can be
checked in near-linear time (Gibbons and Korach 1997). The old value of a compare-and-set is the one that this worker
last saw under that key, so that a fair share of them succeeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from raftbed.model import Plan
from raftbed.workloads.base import Outcome, Request

_READ_SHARE = 0.45
_WRITE_SHARE = 0.30  # the rest are compare-and-sets


class RegisterGenerator:
    """Operations of one worker.

    Parameters:
        random: drawn from for nothing else.
        keys: how many registers there are; they are named "r0", "r1", ...
        worker: number of this worker, from 0.
        workers: how many there are; values are worker + 1 + k * workers, hence never used twice.
    """

    def __init__(self, random: Random, *, keys: int, worker: int, workers: int) -> None:
        self._random = random
        self._keys = [f"r{number}" for number in range(keys)]
        self._next_value = worker + 1
        self._stride = workers
        self._last_seen: tuple[str, Any] | None = None

    def next(self) -> Request:
        """The operation to invoke next."""
        key = self._random.choice(self._keys)
        draw = self._random.random()
        if draw < _READ_SHARE:
            return Request("read", key)
        value = self._next_value
        self._next_value += self._stride
        if draw < _READ_SHARE + _WRITE_SHARE or self._last_seen is None:
            return Request("write", key, value)
        # The key that was looked at last: what was seen of others is likely to be out of date.
        key, old = self._last_seen
        return Request("cas", key, [old, value])

    def observe(self, request: Request, outcome: Outcome) -> None:
        """Remember what was last seen, and where."""
        if outcome.type == "ok":
            seen = request.value[1] if request.f == "cas" else outcome.value
            self._last_seen = (request.key, seen) if seen is not None else None
        elif self._last_seen is not None and self._last_seen[0] == request.key:
            self._last_seen = None  # what we believed is out of date, or unknown: look or write first


class Register:
    """The workload; see the module."""

    name = "register"
    summary = "reads, writes and compare-and-sets of unique values on many independent registers"
    model = "cas-register"
    checks = ("linearizable", "availability", "statistics", "node-health", "fault-coverage")

    def generator(self, plan: Plan, worker: int) -> RegisterGenerator:
        """The generator of one worker, seeded from the plan."""
        random = Random(f"{plan.seed}:register:{worker}")
        return RegisterGenerator(random, keys=plan.keys, worker=worker, workers=plan.concurrency)

    def final_requests(self, plan: Plan, worker: int) -> Sequence[Request]:
        """Each key is read once, the keys dealt out over the workers."""
        return [Request("read", f"r{number}") for number in range(worker, plan.keys, plan.concurrency)]
