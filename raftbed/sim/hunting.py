"""Hunts for planted bugs in simulation: seed after seed of a bug's scenario, until a run ends invalid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

from raftbed import bugs, suite
from raftbed import plan as planning
from raftbed.errors import RaftbedError
from raftbed.model import INVALID
from raftbed.sim.campaign import SeedResult, run_seeds
from raftbed.sim.child import Simulator, pool
from raftbed.sim.replay import read_replay, write_replay
from raftbed.sim.shrink import Shrinker, Size
from raftbed.stories import make_story

_NOT_BY_CLIENTS = ("raft-invariants", "message-storm", "synced-before-sent", "node-health")
_BEST_WITNESSES = ("linearizable", "liveness", "availability")
_RATE = 110.0  # operations per second of a scenario that does not say otherwise
_MOST_SEEDS = 1_000_000


@dataclass(frozen=True, slots=True)
class HuntRequest:
    """What the user asked of ``raftbed bugs``.

    Attributes:
        names: of bugs; () for all.
        store: where violations are kept.
        seeds: how many a bug has at most; None: as many as the budget has room for.
        first_seed: the first.
        time_limit: seconds of each run, in virtual time; None: the simulator's own.
        budget: seconds of a processor that a bug has.
        jobs: processes.
        clients: go on after a violation that only the nodes' traces show, until clients see one.
        shrink: seconds of a processor in which each violation is made small; 0: it is left as it is.
    """

    names: Sequence[str]
    store: Path
    seeds: int | None = None
    first_seed: int = 0
    time_limit: float | None = None
    budget: float = 60.0
    jobs: int = 1
    clients: bool = False
    shrink: float = 0.0


@dataclass(slots=True)
class Hunt:
    """How the hunt for one bug went so far.

    Attributes:
        bug: its name.
        test: that is run.
        found: whether a run ended invalid.
        by: the checks that said so, in the first such run.
        invariants: those of Raft that its traces contradict.
        how: what the first check said.
        seeds: runs until then, or in all.
        seconds: of a processor that they took.
        operations: that were acknowledged in them.
        seed: of the first run that ended invalid.
        file: where it is kept, for `raftbed replay` and `raftbed shrink`.
        by_clients: the checks of what clients saw that said so, in the first such run; none: they saw nothing.
        clients_seeds: runs until then, or in all.
        clients_seconds: of a processor that they took.
        clients_file: where the first run that clients saw is kept.
        shrunk: how large the violation was left by shrinking; None: it was not shrunk.
        shrunk_file: where that is kept.
        broken: runs that the simulator could not make, or not judge.
    """

    bug: str
    test: str
    found: bool = False
    by: tuple[str, ...] = ()
    invariants: tuple[str, ...] = ()
    how: str = ""
    seeds: int = 0
    seconds: float = 0.0
    operations: int = 0
    seed: int | None = None
    file: str = ""
    by_clients: tuple[str, ...] = ()
    clients_seeds: int = 0
    clients_seconds: float = 0.0
    clients_file: str = ""
    shrunk: Size | None = None
    shrunk_file: str = ""
    broken: list[str] = field(default_factory=list)

    def take(self, result: SeedResult) -> None:
        """One more run."""
        if result.validity not in ("valid", INVALID):
            self.broken.append(f"seed {result.seed}: {result.reason}")
        if not self.by_clients:
            self.clients_seeds += 1
            self.clients_seconds = round(self.clients_seconds + result.cpu, 2)
            self.by_clients = tuple(v.checker for v in result.violations if v.checker not in _NOT_BY_CLIENTS)
            self.clients_file = result.file if self.by_clients else ""
        if self.found:
            return
        self.seeds, self.seconds = self.clients_seeds, self.clients_seconds
        self.operations += result.counts.get("ok", 0)
        if result.validity == INVALID:
            self.found, self.seed, self.file = True, result.seed, result.file
            self.by, self.how = tuple(v.checker for v in result.violations), result.violations[0].summary
            self.invariants = result.invariants


def hunt_all(request: HuntRequest, progress: Callable[[Hunt], None], ended: Callable[[Hunt], None]) -> list[Hunt]:
    """Hunt one bug after the other; `progress` is told of each run, `ended` of each hunt.

    Raises:
        UsageError: there is no bug of that name.
    """
    for name in request.names:
        suite.pick(dict.fromkeys(bugs.names()), name, "bug")
    hunts = []
    for name in request.names or bugs.names():
        hunts.append(hunt(bugs.load(name), request, progress))
        if hunts[-1].found and request.shrink:
            shrink(hunts[-1], request.shrink)
        ended(hunts[-1])
    return hunts


def settings_of(
    bug: bugs.Bug, *, seed: int, time_limit: float | None = None, planted: bool = True
) -> planning.PlanSettings:
    """What is run in simulation for a bug.

    Parameters:
        bug: whose scenario it is.
        seed: of the run.
        time_limit: seconds of it, in virtual time; None: as the scenario has it.
        planted: with the bug; without it the same run is to find nothing.
    """
    scenario = bug.simulation
    settings = planning.PlanSettings(
        test=scenario.test,
        hosts=suite.SIMULATED,
        bug=bug.name if planted else None,
        nodes=scenario.nodes or bug.nodes,
        faults=list(scenario.faults) or None,
        seed=seed,
        node_options={**bug.node_options, **scenario.node_options},
        own_options={},  # a scenario says what a bug needs
        rare_points={},
        rate=_RATE,
    )
    changes = {**scenario.settings, **({"time_limit": time_limit} if time_limit else {})}
    settings = planning.override(settings, **changes)
    if scenario.story is None:
        return settings
    kinds = list(dict.fromkeys(beat.kind for beat in scenario.story.beats))
    plan = planning.make_plan(planning.override(settings, faults=kinds, schedule=[]), seed=seed)
    schedule = make_story(scenario.story, nodes=plan.nodes, time_limit=plan.time_limit, seed=seed)
    return planning.override(settings, faults=kinds, schedule=list(schedule))


def hunt(bug: bugs.Bug, request: HuntRequest, progress: Callable[[Hunt], None]) -> Hunt:
    """Simulate one seed after the other, until a run ends invalid or the budget is spent.

    Raises:
        RaftbedError: a process was killed.
    """
    settings = settings_of(bug, seed=request.first_seed, time_limit=request.time_limit)
    planning.make_plan(settings, seed=request.first_seed)  # what is wrong with it is wrong with every seed
    directory = request.store / "bugs" / bug.name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    seeds = iter(range(request.first_seed, request.first_seed + (request.seeds or _MOST_SEEDS)))
    so_far = Hunt(bug.name, settings.test)
    running: set[Future[list[SeedResult]]] = set()
    with pool(request.jobs, bug.name) as processes:
        while True:
            while len(running) < request.jobs and _goes_on(so_far, request) and (seed := next(seeds, None)) is not None:
                settings = settings_of(bug, seed=seed, time_limit=request.time_limit)
                running.add(processes.submit(run_seeds, settings, [seed], directory))
            if not running:
                return so_far
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for result in _results_of(done):
                so_far.take(result)
                progress(so_far)


def shrink(hunt: Hunt, seconds: float) -> None:
    """Make the violation of a hunt small, that which clients saw if they saw one, and keep it beside the large one."""
    file = Path(hunt.clients_file or hunt.file)
    wanted = next((name for name in _BEST_WITNESSES if name in hunt.by_clients), None)
    with Simulator(hunt.bug) as simulator:

        def clock() -> float:
            return time.process_time() + simulator.seconds

        shrinker = Shrinker(read_replay(file), simulator, seconds=seconds, wanted=wanted, clock=clock)
        shrunk = shrinker.shrink()
    if shrunk is not None:
        small = file.with_name(f"{file.stem}.small.json")
        write_replay(small, shrunk[0])
        hunt.shrunk, hunt.shrunk_file = shrinker.size, str(small)


def _goes_on(hunt: Hunt, request: HuntRequest) -> bool:
    if hunt.clients_seconds >= request.budget:
        return False
    return not hunt.found or (request.clients and not hunt.by_clients)


def _results_of(done: Iterable[Future[list[SeedResult]]]) -> list[SeedResult]:
    try:
        return sorted((one for future in done for one in future.result()), key=lambda one: one.seed)
    except BrokenProcessPool as error:
        raise RaftbedError("A process of the hunt was killed: is there enough memory?") from error


def rows(hunts: Sequence[Hunt]) -> list[tuple[str, ...]]:
    """The scoreboard as a table, its head first."""
    head = ("bug", "found", "seeds", "CPU s", "operations", "seen by clients", "by")
    if not any(hunt.shrunk for hunt in hunts):
        return [head, *(_row(hunt) for hunt in hunts)]
    return [(*head, "shrunk to"), *((*_row(hunt), _small(hunt.shrunk)) for hunt in hunts)]


def _small(size: Size | None) -> str:
    if size is None:
        return "-"
    return f"{size.faults} faults, {size.operations} operations, {size.nodes} nodes"


def _row(hunt: Hunt) -> tuple[str, ...]:
    by = [name for name in hunt.by if name != "raft-invariants"] + list(hunt.invariants)
    seen = f"{', '.join(hunt.by_clients)} ({hunt.clients_seconds:.1f} s)" if hunt.by_clients else "no"
    return (
        hunt.bug,
        "yes" if hunt.found else "no",
        str(hunt.seeds),
        f"{hunt.seconds:.1f}",
        str(hunt.operations),
        seen,
        ", ".join(by) or "-",
    )
