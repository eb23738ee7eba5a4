"""The ``bugs`` command: plant every bug, run the test that is to expose it, and say who found it (docs/bugs.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from raftbed import bugs, suite
from raftbed import plan as planning
from raftbed.console import Console, Stopwatch
from raftbed.errors import RaftbedError
from raftbed.running import RunRequest, run_once
from raftbed.store import Results


@dataclass(frozen=True, slots=True)
class Hunt:
    """How the hunt for one bug ended.

    Attributes:
        bug: its name.
        test: that was run.
        found: whether a run ended invalid.
        by: the checks that said so, in that run.
        how: what the first of them said.
        seeds: how many runs there were.
        seconds: that they took in all.
        operations: that were acknowledged in all.
        runs: their directories.
        error: what made a run impossible, or "".
    """

    bug: str
    test: str
    found: bool
    by: tuple[str, ...]
    how: str
    seeds: int
    seconds: float
    operations: int
    runs: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class HuntRequest:
    """What the user asked of ``raftbed bugs``.

    Attributes:
        names: of bugs; () for all.
        store: where runs are kept.
        seeds: how many runs a bug has at most.
        first_seed: of its first run.
        time_limit: seconds of each run in which clients and faults work.
    """

    names: Sequence[str]
    store: Path
    seeds: int = 3
    first_seed: int = 1
    time_limit: float = 20.0


def hunt_all(request: HuntRequest, ended: Callable[[Hunt], None]) -> list[Hunt]:
    """Hunt one bug after the other on real hosts; `ended` is told of each.

    Raises:
        UsageError: there is no bug of that name.
    """
    for name in request.names:
        suite.pick(dict.fromkeys(bugs.names()), name, "bug")
    hunts = []
    for name in request.names or bugs.names():
        hunts.append(hunt(bugs.load(name), request))
        ended(hunts[-1])
    return hunts


def hunt(bug: bugs.Bug, request: HuntRequest) -> Hunt:
    """Run the bug's test with one seed after the other, until a run ends invalid. A run that fails ends the hunt."""
    clock = Stopwatch()
    runs: list[str] = []
    operations = 0
    by: tuple[str, ...] = ()
    how = error = ""
    for seed in range(request.first_seed, request.first_seed + request.seeds):
        settings = planning.PlanSettings(test=bug.test, bug=bug.name, time_limit=request.time_limit)
        run_request = RunRequest(settings=settings, store=request.store)
        try:
            directory, state, results, _ = run_once(
                planning.make_plan(settings, seed=seed), run_request, Console(json=True)
            )
        except RaftbedError as failure:
            error = str(failure)
            break
        runs.append(str(directory.path))
        operations += _acknowledged(results)
        invalid = [verdict for verdict in results.verdicts if verdict.validity == "invalid"]
        if invalid:
            by, how = tuple(verdict.checker for verdict in invalid), invalid[0].summary
            break
        if state == "interrupted":
            error = "interrupted"
            break
    seconds = round(clock.seconds(), 1)
    return Hunt(bug.name, bug.test, bool(by), by, how, len(runs), seconds, operations, tuple(runs), error)


def _acknowledged(results: Results) -> int:
    return sum(int(verdict.details.get("ok", 0)) for verdict in results.verdicts if verdict.checker == "statistics")


def rows(hunts: Sequence[Hunt]) -> list[tuple[str, ...]]:
    """The scoreboard as a table, its head first."""
    head = ("bug", "found", "runs", "seconds", "operations", "by")
    return [head, *(_row(hunt) for hunt in hunts)]


def _row(hunt: Hunt) -> tuple[str, ...]:
    said = "yes" if hunt.found else "could not run" if hunt.error else "no"
    by = ", ".join(hunt.by) or hunt.error.splitlines()[0] if hunt.error or hunt.by else "-"
    return (hunt.bug, said, str(hunt.seeds), f"{hunt.seconds:.0f}", str(hunt.operations), by)
