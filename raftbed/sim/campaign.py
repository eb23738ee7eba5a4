"""Campaigns: many seeds, side by side, kept as they come in, so that one that was cut off can go on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import msgspec

from raftbed import __version__
from raftbed import plan as planning
from raftbed.errors import RaftbedError, StoreError
from raftbed.model import INVALID, VALID, Validity, Verdict
from raftbed.record import LineWriter, read_json_lines
from raftbed.sim.child import pool, run
from raftbed.sim.replay import Violation, judge, replay_of, violations_of, write_replay
from raftbed.sim.simulation import rare_collections

_BATCH = 4  # seeds that a process takes at once


@dataclass(frozen=True, slots=True)
class SeedResult:
    """What one seed showed.

    Attributes:
        seed: which.
        validity: the worst verdict.
        violations: broken promises.
        invariants: those of Raft that the nodes' traces contradict.
        reason: for "unknown", why.
        duration: virtual nanoseconds.
        counts: totals of the simulation (`raftbed.sim.recording.Recording.counts`).
        faults: kind to how many struck.
        cpu: seconds of a processor that it took.
        file: where the violation is kept.
    """

    seed: int
    validity: Validity
    violations: tuple[Violation, ...] = ()
    invariants: tuple[str, ...] = ()
    reason: str = ""
    duration: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    cpu: float = 0.0
    file: str = ""


@dataclass(slots=True)
class Summary:
    """What a campaign has shown so far.

    Attributes:
        wanted: seeds in all.
        results: those that are done, by seed.
        interrupted: it was stopped by the user.
    """

    wanted: int
    results: dict[int, SeedResult] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def validity(self) -> Validity:
        """Invalid with one violation; valid when every seed is; else unknown."""
        every = [result.validity for result in self.results.values()]
        if INVALID in every:
            return INVALID
        return VALID if len(every) >= self.wanted and VALID in every else "unknown"

    def total(self, name: str) -> int:
        """Sum of a count over all seeds."""
        return sum(result.counts.get(name, 0) for result in self.results.values())

    def names(self) -> list[str]:
        """The names of all counts."""
        return sorted({name for result in self.results.values() for name in result.counts})

    def faults(self) -> Counter[str]:
        """How many faults of each kind struck."""
        counter: Counter[str] = Counter()
        for result in self.results.values():
            counter.update(result.faults)
        return counter

    def causes(self) -> dict[str, list[SeedResult]]:
        """Violations by cause, the most frequent first."""
        groups: dict[str, list[SeedResult]] = {}
        for _, result in sorted(self.results.items()):
            for violation in result.violations[:1]:
                groups.setdefault(violation.cause, []).append(result)
        return dict(sorted(groups.items(), key=lambda group: -len(group[1])))


class Campaign:
    """Runs seeds in processes of their own.

    Parameters:
        settings: of each run; the seed is filled in.
        first: the first seed.
        count: how many.
        jobs: processes.
        keep_going: go on after a violation.
        store: where its files are kept.
    """

    def __init__(
        self, settings: planning.PlanSettings, *, first: int, count: int, jobs: int, keep_going: bool, store: Path
    ) -> None:
        self._settings = settings
        self._seeds = range(first, first + count)
        self._jobs = jobs
        self._keep_going = keep_going
        self.directory = store / "campaigns" / f"{settings.test}-{_digest(settings)}"
        self.summary = Summary(count)
        self._stopped = False

    def stop(self) -> None:
        """Begin no more seeds."""
        self._stopped = self.summary.interrupted = True

    def run(self, *, resume: bool, progress: Callable[[Summary, float], None]) -> Summary:
        """Run the seeds that are left.

        Parameters:
            resume: take over what an earlier campaign with the same settings has found.
            progress: is called now and then, with the seconds since the start.

        Raises:
            StoreError: its files cannot be written.
        """
        path = self._prepare(resume)
        began = time.monotonic()
        left = [seed for seed in self._seeds if seed not in self.summary.results]
        with LineWriter(path) as lines, pool(self._jobs, self._settings.bug) as processes:
            batches = _batches(left)
            running: set[Future[list[SeedResult]]] = set()
            while True:
                while len(running) < self._jobs + 1 and not self._stopped and (batch := next(batches, None)):
                    running.add(processes.submit(run_seeds, self._settings, batch, self.directory))
                if not running:
                    break
                done, running = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for result in _results_of(done):
                    self.summary.results[result.seed] = result
                    lines.write(result)
                    if result.validity == INVALID and not self._keep_going:
                        self._stopped = True
                progress(self.summary, time.monotonic() - began)
        return self.summary

    def _prepare(self, resume: bool) -> Path:
        path = self.directory / "results.jsonl"
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not resume:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{self.directory}: cannot be written: {error.strerror or error}.") from error
        if path.exists():
            found = [msgspec.convert(record, SeedResult) for record in read_json_lines(path)]
            self.summary.results = {result.seed: result for result in found if result.seed in self._seeds}
        return path


def _results_of(done: Iterable[Future[list[SeedResult]]]) -> list[SeedResult]:
    try:
        return sorted((one for future in done for one in future.result()), key=lambda one: one.seed)
    except BrokenProcessPool as error:
        raise RaftbedError(
            "A process of the campaign was killed: is there enough memory?",
            remedy="What was found is kept; the same command with --resume goes on.",
        ) from error


def run_seeds(settings: planning.PlanSettings, seeds: Sequence[int], directory: Path) -> list[SeedResult]:
    """Simulate and judge some seeds, in this process; a violation is kept in `directory`."""
    with rare_collections():
        return [_run_seed(settings, seed, directory) for seed in seeds]


def _run_seed(settings: planning.PlanSettings, seed: int, directory: Path) -> SeedResult:
    began = time.process_time()
    plan = planning.make_plan(planning.override(settings, seed=seed), seed=seed)
    try:
        recording = run(plan)
    except Exception as error:  # a defect of the simulator must not end a campaign; it shows as what it is
        return SeedResult(seed, "unknown", reason=f"simulator: it broke: {type(error).__name__}: {error}")
    results = judge(recording)
    file = ""
    if results.validity == INVALID:
        file = str(directory / f"seed-{seed}.json")
        write_replay(Path(file), replay_of(recording, results))
    unknown = next((v for v in results.verdicts if v.validity == "unknown"), None)
    return SeedResult(
        seed=seed,
        validity=results.validity,
        violations=violations_of(results.verdicts),
        invariants=_invariants(results.verdicts),
        reason=f"{unknown.checker}: {unknown.summary}" if unknown and results.validity == "unknown" else "",
        duration=recording.duration,
        counts=recording.counts,
        faults=dict(Counter(event.kind for event in recording.faults if event.state == "injected")),
        cpu=time.process_time() - began,
        file=file,
    )


def _invariants(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    found = [verdict for verdict in verdicts if verdict.checker == "raft-invariants" and verdict.validity == INVALID]
    return tuple(name for verdict in found for name in sorted(verdict.details.get("counts", {})))


def _batches(seeds: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(seeds), _BATCH):
        yield seeds[start : start + _BATCH]


def _digest(settings: planning.PlanSettings) -> str:
    """Tells campaigns apart whose seeds mean different runs."""
    plan = planning.make_plan(settings, seed=0)
    return blake2b(msgspec.json.encode([__version__, plan]), digest_size=4).hexdigest()
