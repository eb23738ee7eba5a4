"""The ``run`` command: plan, run, check, report, once or several times, with progress and Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from raftbed import plan as planning
from raftbed import suite
from raftbed.checking import Limits, check_run, write_report
from raftbed.console import Console, progress_line, show_plan, show_results
from raftbed.errors import RaftbedError, UsageError
from raftbed.hosts.inventory_file import Access, clean_command, is_inventory, read_inventory
from raftbed.hosts.local_user import expand_home
from raftbed.model import Plan, Validity, worst
from raftbed.stopping import StopSignal
from raftbed.store import Results, RunDirectory, RunState, Store

if TYPE_CHECKING:
    from raftbed.run import Run


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What the user asked of ``raftbed run``.

    Attributes:
        settings: plan file and command line, merged.
        store: where runs are kept.
        repeat: how many runs, with seeds counting up.
        keep: leave the hosts up.
        time_limit: seconds for all checks of one run.
        memory_limit: bytes for all checks of one run.
        access: what the user adds to an inventory.
    """

    settings: planning.PlanSettings
    store: Path
    repeat: int = 1
    keep: bool = False
    time_limit: float = 60.0
    memory_limit: int = 4 << 30
    access: Access | None = None


def dry_run(request: RunRequest, console: Console) -> int:
    """Print plan and schedule."""
    request = replace(request, settings=settings_for_hosts(request.settings))
    plan = _plan(request)
    if console.json:
        console.emit({"plan": plan})
    else:
        show_plan(plan, console.result)
        command = planning.repeat_command(plan)
        if command is not None:  # else the plan file says what the options cannot
            console.result(f"command        {command}")
    return 0


def run_all(request: RunRequest, console: Console) -> Validity:
    """Run as often as asked; returns the worst verdict.

    Raises:
        RaftbedError: a run could not be run.
    """
    request = replace(request, settings=settings_for_hosts(request.settings))
    first = _plan(request)
    every: list[Results] = []
    documents: list[dict[str, Any]] = []
    failure: RaftbedError | None = None
    for turn in range(request.repeat):
        plan = first
        if turn:
            settings = msgspec.structs.replace(request.settings, seed=first.seed + turn)
            plan = planning.make_plan(settings, seed=first.seed + turn)
        try:
            directory, state, results, report = run_once(plan, request, console)
        except RaftbedError as error:
            if not every:
                raise
            failure = error  # what the runs before it showed is told first
            break
        every.append(results)
        documents.append(
            {"run": str(directory.path), "state": state, "report": str(report) if report else None, "results": results}
        )
        if state == "interrupted":
            break
    validity = worst(results.validity for results in every)
    if request.repeat > 1:
        counts = {kind: sum(results.validity == kind for results in every) for kind in ("valid", "invalid", "unknown")}
        said = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        console.result(f"  {len(every)} of {request.repeat} runs: {said}", before=console.strong(validity))
    if console.json:
        console.emit({"validity": validity, "runs": documents})
    if failure is not None:
        raise failure
    return validity


def settings_for_hosts(settings: planning.PlanSettings) -> planning.PlanSettings:
    """`settings` with the nodes that its inventory has, when it names one; by default all of them.

    Raises:
        UsageError: the inventory is malformed, or has too few hosts.
    """
    if settings.hosts is None or not is_inventory(settings.hosts):
        return settings
    hosts = settings.hosts
    if hosts.endswith(".toml"):  # so that the plan can be repeated from anywhere
        hosts = os.path.abspath(expand_home(hosts))
    names = list(read_inventory(hosts))
    nodes = settings.nodes
    if nodes is None:
        nodes = min(planning.bug_nodes(settings.bug) or len(names), len(names))
    if isinstance(nodes, int):
        if nodes > len(names):
            raise UsageError(f"{hosts}: has {len(names)} hosts, and the run {nodes} nodes.",
                             remedy=f"Choose at most: --nodes {len(names)}")  # fmt: skip
        if nodes > 0 and names[:nodes] != [f"n{number}" for number in range(1, nodes + 1)]:
            nodes = names[:nodes]
    return msgspec.structs.replace(settings, hosts=hosts, nodes=nodes)


def _plan(request: RunRequest) -> Plan:
    """The first plan of what was asked for; of one run again, the seed alone is changed."""
    plan = planning.make_plan(request.settings, seed=_draw_seed())
    if plan.hosts in suite.IN_VIRTUAL_TIME:
        raise UsageError(f"{plan.test} runs in virtual time only.", remedy=f"Use: raftbed simulate {plan.test}")
    return plan


def run_once(plan: Plan, request: RunRequest, console: Console) -> tuple[RunDirectory, RunState, Results, Path | None]:
    """One run with its checks and its report. What a failed run recorded is checked and reported too.

    Raises:
        RaftbedError: it could not be run.
    """
    directory = Store(request.store).new_run(plan.test)
    command = planning.repeat_command(plan, directory.path / "plan.json")
    assert command is not None
    console.say(f"{command}\n  in {directory.path}")
    limits = Limits(time=request.time_limit, memory=request.memory_limit)
    run, stop = _prepared(plan, directory, command, request)
    try:
        state = _execute_or_check(run, stop, limits, directory, console)
        if state == "interrupted":
            console.say("Interrupted: checking what was recorded.")
        results, report = _check_and_report(directory, limits, console)
    finally:
        _tell_what_stays(run, plan, directory, console)
    return directory, state, results, report


def _execute_or_check(
    run: Run, stop: StopSignal, limits: Limits, directory: RunDirectory, console: Console
) -> RunState:
    """Execute a run; of one that failed, check and report what it recorded, and raise why."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_execute(run, stop, console))
    except RaftbedError:
        if _has_operations(directory):
            try:
                _check_and_report(directory, limits, console)
            except RaftbedError as second:  # a disk that is still full, say; what came first is raised
                console.warn(f"What was recorded could not be checked: {second}")
        raise


def _check_and_report(directory: RunDirectory, limits: Limits, console: Console) -> tuple[Results, Path | None]:
    """Check what a run recorded, write the report, and show both."""
    console.progress("checking")
    results = check_run(directory, limits=limits, warn=console.warn)
    console.progress("writing the report")
    report = _report(directory, console)
    show_results(console, results)
    if report is not None:
        console.result(f"  report: {report}")
    return results, report


def _tell_what_stays(run: Run, plan: Plan, directory: RunDirectory, console: Console) -> None:
    """Say what the run left on hosts, as it was asked to or because it was not given the time, and what to do."""
    theirs = f" --hosts {shlex.quote(plan.hosts)}" if is_inventory(plan.hosts) else ""
    store = directory.path.resolve().parent.parent
    elsewhere = "" if theirs or store == Path("store").resolve() else f" --store {shlex.quote(str(store))}"
    if run.keeps_hosts:
        console.say(f"The hosts are still up. Look at their nodes with: raftbed cluster status{theirs}")
        console.say(f"Remove them with: {clean_command(plan.hosts)}{elsewhere}")
    if run.running_on:
        console.warn(f"Nodes may still run on {', '.join(run.running_on)}. End them with: {clean_command(plan.hosts)}")


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed: the controller shares its cores with the nodes, and should be light."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _prepared(plan: Plan, directory: RunDirectory, command: str, request: RunRequest) -> tuple[Run, StopSignal]:
    from raftbed.run import Run

    stop = StopSignal()
    return Run(plan, directory, command=command, stop=stop, keep=request.keep, access=request.access), stop


async def _execute(run: Run, stop: StopSignal, console: Console) -> RunState:
    with _interrupts(stop.interrupt, console):
        work = asyncio.ensure_future(run.execute())
        while not work.done():
            if console.live:
                console.progress(progress_line(run.progress()))
            await asyncio.wait({work}, timeout=0.25)
        return work.result()


@contextlib.contextmanager
def _interrupts(interrupt: Any, console: Console) -> Iterator[None]:
    """Ctrl-C, SIGTERM and the end of the terminal go to the run while this lasts."""
    loop = asyncio.get_running_loop()
    taken = 0

    def take(number: int) -> None:
        nonlocal taken
        if number == signal.SIGHUP and taken:
            return  # shell and kernel both send it, once each, and nobody waits at a terminal that is closed
        taken += 1
        interrupt()
        if taken == 1:
            console.say("Stopping: faults are healed and the history is saved. Once more: stop at once.")
        else:
            console.say("Stopping at once.")

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else somebody wants the run to outlive the terminal
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, take, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def _report(directory: RunDirectory, console: Console) -> Path | None:
    """Write the report; a report that fails changes no verdict."""
    try:
        return write_report(directory)
    except Exception as error:  # the verdict stands, whatever is wrong with the page
        console.warn(f"The report could not be written: {type(error).__name__}: {error}")
        return None


def _has_operations(directory: RunDirectory) -> bool:
    try:
        return any(op.type == "ok" for op in directory.history())
    except RaftbedError:
        return False


def _draw_seed() -> int:
    return secrets.randbelow(1_000_000)
