"""The ``simulate``, ``replay`` and ``shrink`` commands: simulate, check, report."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from raftbed import plan as planning
from raftbed import suite
from raftbed.checking import Limits, check_run, write_report
from raftbed.console import Console, schedule_line, show_results
from raftbed.errors import PlanError, UsageError
from raftbed.model import Plan, Validity
from raftbed.sim.child import Simulator, simulate
from raftbed.sim.recording import Recording
from raftbed.sim.replay import read_replay, violations_of, write_replay
from raftbed.sim.shrink import Shrinker, Size
from raftbed.store import Results, RunDirectory, Store


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


def simulated(settings: planning.PlanSettings, *, real_nodes: bool = False) -> planning.PlanSettings:
    """The same, in virtual time.

    Parameters:
        settings: as the user gave them.
        real_nodes: with whole nodes, unless the settings say so anyway.

    Raises:
        UsageError: the settings name real hosts.
    """
    if settings.hosts not in (None, *suite.IN_VIRTUAL_TIME):
        raise UsageError(f"hosts: {settings.hosts!r} is not what a simulation runs on.", remedy="Use `raftbed run`.")
    hosts = suite.REAL_NODES if real_nodes else settings.hosts or suite.SIMULATED
    return planning.override(settings, hosts=hosts)


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
    limits = Limits(time=request.time_limit, memory=request.memory_limit)
    results = check_run(directory, limits=limits, warn=console.warn)
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


def run_replay(file: Path, store: Path, console: Console) -> Validity:
    """Repeat a violation and say whether it is the same; returns the verdict.

    Raises:
        PlanError: `file` is no schedule file.
    """
    replay = read_replay(file)
    recording = simulate(replay.plan, script=replay.script, messages=True)
    directory, results, report = _judge_and_report(recording, store, command=f"raftbed replay {file}")
    show_results(console, results)
    found = {violation.checker for violation in violations_of(results.verdicts)}
    wanted = {violation.checker for violation in replay.violations}
    same = recording.trace_hash() == replay.trace_hash
    if same:
        console.result("  the same run, to the byte")
    elif replay.trace_hash:
        how = "the same violation" if found & wanted else "not the violation that was kept"
        console.result(f"  not the same run (it was kept by raftbed {replay.version}), and {how}")
    console.result(f"  report: {report}")
    if console.json:
        console.emit(
            {
                "validity": results.validity,
                "run": str(directory.path),
                "report": str(report),
                "same_trace": same,
                "same_violation": bool(found & wanted),
                "results": results,
            }
        )
    return results.validity


def run_shrink(file: Path, store: Path, console: Console, *, seconds: float) -> Validity:
    """Make a violation small, keep the result beside `file`, and report on it; returns its verdict.

    Raises:
        PlanError: `file` is no schedule file, or its violation does not repeat.
    """
    replay = read_replay(file)
    if not replay.violations:
        raise PlanError(f"{file}: names no violation.", remedy="Name a schedule file that `raftbed campaign` saved.")

    def tell(what: str, size: Size) -> None:
        console.progress(f"{what}: {size.faults} faults, {size.operations} operations, {size.nodes} nodes")

    with Simulator(replay.plan.bug) as simulator:
        shrinker = Shrinker(replay, simulator, seconds=seconds, tell=tell)
        shrunk = shrinker.shrink()
        if shrunk is None:
            raise PlanError(f"{file}: its violation does not repeat with this version.")
        smaller = shrunk[0]
        recording = simulator.run(smaller.plan, script=smaller.script, messages=True)
    beside = file.with_name(f"{file.stem.removesuffix('.small')}.small.json")
    write_replay(beside, smaller)
    directory, results, report = _judge_and_report(recording, store, command=f"raftbed replay {beside}")
    show_results(console, results)
    size = shrinker.size
    said = f"{size.faults} faults, {size.operations} operations, {size.nodes} nodes"
    console.result(f"  {said}, after {shrinker.trials} trials")
    for step in smaller.plan.schedule:
        console.result(f"    {schedule_line(step)}")
    console.result(f"  repeat it: raftbed replay {beside}")
    console.result(f"  report: {report}")
    if console.json:
        console.emit(
            {
                "validity": results.validity,
                "run": str(directory.path),
                "report": str(report),
                "file": str(beside),
                "size": size,
                "trials": shrinker.trials,
                "results": results,
            }
        )
    return results.validity


def _judge_and_report(recording: Recording, store: Path, *, command: str) -> tuple[RunDirectory, Results, Path]:
    directory = Store(store).new_run(recording.plan.test)
    started = datetime.now().astimezone().isoformat(timespec="milliseconds")
    recording.write(directory, command=command, started=started)
    results = check_run(directory, limits=Limits())
    return directory, results, write_report(directory)
