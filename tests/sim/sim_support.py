"""Builders for the simulator's tests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from raftbed.analysis.checks import run_checks
from raftbed.model import FaultStep, Plan
from raftbed.plan import PlanSettings, make_plan
from raftbed.sim.recording import RecordedRun, Recording
from raftbed.store import Results


def plan_of(test: str = "chaos-test", *, seed: int = 1, **settings: Any) -> Plan:
    """A plan for the simulator."""
    return make_plan(PlanSettings(**{"test": test, "hosts": "simulated", **settings}), seed=seed)


def step(
    kind: str, shape: str, at: float, until: float, *, nodes: int = 5, number: int = 1, **options: float
) -> FaultStep:
    """One fault, the nodes in their own order."""
    order = tuple(f"n{place}" for place in range(1, nodes + 1))
    return FaultStep(f"f{number:02d}", kind, shape, at, until, order, options=options)


def judged(recording: Recording) -> Results:
    """The verdicts on a recording."""
    with tempfile.TemporaryDirectory() as scratch:
        run = RecordedRun(recording, Path(scratch))
        return run_checks(run, recording.plan.checks, time_limit=30, memory_limit=1 << 30, isolated=False)


def broken(results: Results) -> list[str]:
    """The checks that found a broken promise, and what they say."""
    return [f"{verdict.checker}: {verdict.summary}" for verdict in results.verdicts if verdict.validity == "invalid"]
