"""The ``simulate`` command: plan, simulate, check, report."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from raftbed import plan as planning
from raftbed import suite
from raftbed.checking import Limits, check_run, write_report
from raftbed.console import Console, show_results
from raftbed.errors import UsageError
from raftbed.model import Plan, Validity
from raftbed.sim.child import simulate
from raftbed.sim.recording import Recording
from raftbed.store import RunDirectory, Store


@dataclass(frozen=True, slots=True)
class SimulateRequest:
    """What the user asked of ``raftbed simulate``.

    Attributes:
        settings: plan file and command line, merged.
        store: where runs are kept.
        messages: record every message between nodes.
        time_limit: seconds for the check of linearizability.
        memory_limit: bytes for it.
    """

    settings: planning.PlanSettings
    store: Path
    messages: bool = False
    time_limit: float = 60.0
    memory_limit: int = 4 << 30


def simulated(settings: planning.PlanSettings) -> planning.PlanSettings:
    """The same, in virtual time.

    Raises:
        UsageError: the settings name real hosts.
    """
    if settings.hosts not in (None, suite.SIMULATED):
        raise UsageError(f"hosts: {settings.hosts!r} is not what a simulation runs on.", remedy="Use `raftbed run`.")
    return planning.override(settings, hosts=suite.SIMULATED)


def run_simulation(request: SimulateRequest, console: Console) -> Validity:
    """Simulate, check and report; returns the verdict.

    Raises:
        RaftbedError: it could not be done.
    """
    plan = planning.make_plan(request.settings, seed=secrets.randbelow(1_000_000))
    console.progress("simulating")
    began = time.monotonic()
    started = datetime.now().astimezone().isoformat(timespec="milliseconds")
    recording = simulate(plan, messages=request.messages)
    took = time.monotonic() - began
    directory = keep(recording, request.store, started=started)
    console.say(f"{directory.manifest().command}\n  in {directory.path}")
    console.progress("checking")
    results = check_run(directory, limits=Limits(time=request.time_limit, memory=request.memory_limit))
    console.progress("writing the report")
    report = write_report(directory)
    show_results(console, results)
    counts = recording.counts
    console.result(f"  {simulated_line(recording)} in {took:.1f} s")
    console.result(f"  trace {recording.trace_hash()}")
    console.result(f"  report: {report}")
    if console.json:
        console.emit(
            {
                "validity": results.validity,
                "run": str(directory.path),
                "report": str(report),
                "trace_hash": recording.trace_hash(),
                "counts": counts,
                "results": results,
            }
        )
    return results.validity


def keep(recording: Recording, store: Path, *, started: str) -> RunDirectory:
    """Write a recording into a new run directory of the store.

    Raises:
        StoreError: it cannot be written.
    """
    directory = Store(store).new_run(recording.plan.test)
    recording.write(directory, command=command_of(recording.plan, directory), started=started)
    return directory


def command_of(plan: Plan, directory: RunDirectory) -> str:
    """The command that repeats a simulated run."""
    command = planning.repeat_command(plan, directory.path / "plan.json")
    assert command is not None
    return command


def simulated_line(recording: Recording) -> str:
    """How much was simulated, in words."""
    counts = recording.counts
    return (
        f"{recording.duration / 1e9:.1f} simulated seconds, {counts['messages']} messages, "
        f"{counts.get('leaderships', 0)} leaderships, {counts.get('truncations', 0)} truncated logs"
    )
