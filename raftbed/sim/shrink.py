"""Making a violation small: fewer faults, fewer operations, fewer nodes, while the same violation stays.

Theory of operation
-------------------
A candidate is a plan with its schedule spelled out, and from some moment on a script: the operations of the run, one by
one, in place of the generators that made them. To take a step or an operation out is to try the rest. Delta debugging
(Zeller and Hildebrandt 2002) takes out halves, then quarters, and so on.

Every change also changes the luck of what follows: a message that is not sent moves the draws of those behind it. With
schedule and operations spelled out the seed decides about that luck alone, so that each candidate is tried under a few
seeds, and counts when one of them shows the violation.

What needs luck would stay large that way: of a run with hundreds of operations, most smaller ones show nothing under a
few seeds. So there are three bold steps first. The run is ended soon after the violation: with the same seed a shorter
run is the beginning of the longer one, so that this needs no luck. Then the last faults are tried alone, moved to the
beginning, and a handful of operations drawn at random; such runs are quick, so that many seeds can be tried.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from raftbed.model import INVALID, SECOND, FaultStep, Op, Plan
from raftbed.sim.child import Simulator
from raftbed.sim.recording import Recording
from raftbed.sim.replay import Replay, judge, replay_of, violations_of
from raftbed.sim.simulation import Call
from raftbed.store import Results
from raftbed.workloads.base import Request

_LUCKS = 4
_LUCKS_OF_A_SCRIPT = 8  # for the change after which there is more than one seed to try
_OTHER_SEED = 1_000_003
_MOST_LUCKS = 100  # of a bold step
_PATIENCE = 1 / 5  # of the time, for a bold step
_LEAST_TIME = 0.5  # seconds of a run
_CALM = 0.4  # seconds before the first of the last faults
_LAST_FAULTS = 5
_HANDFULS = (0, 1, 2, 4, 8, 12, 24)  # numbers of operations
_FEW = 12  # operations, that need no bold step
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Size:
    """How large a counterexample is."""

    faults: int
    operations: int
    nodes: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is tried: a plan, and its operations one by one; None: as its generators make them."""

    plan: Plan
    script: tuple[Call, ...] | None


class Shrinker:
    """Shrinks one violation.

    Parameters:
        replay: the violation.
        simulator: runs plans.
        seconds: after which the smallest one so far is good enough.
        tell: is told of each success: what was tried, and the size now.
        clock: counts them; of the wall, or of a processor.
        wanted: the check whose violation is to stay; None: any of those that the replay names.
    """

    def __init__(
        self,
        replay: Replay,
        simulator: Simulator,
        *,
        seconds: float,
        tell: Callable[[str, Size], None] = lambda what, size: None,
        clock: Callable[[], float] = time.monotonic,
        wanted: str | None = None,
    ) -> None:
        self._wanted = {wanted} if wanted else {violation.checker for violation in replay.violations}
        self._simulator = simulator
        self._clock = clock
        self._until = clock() + seconds
        self._patience = seconds * _PATIENCE
        self._tell = tell
        self._first = Candidate(replay.plan, replay.script)
        self._best: tuple[Candidate, Recording, Results] | None = None
        self._what = "as it was"
        self.trials = 0

    def shrink(self) -> tuple[Replay, Recording, Results] | None:
        """The smallest counterexample that was found, its recording and its verdicts; None: it does not repeat."""
        if not self._try(self._first, lucks=1):
            return None
        self._beginning_alone()
        self._last_faults_alone()
        before = None
        while before != self.size and self._has_time():
            before = self.size
            self._spell_out()
            self._witness_alone()  # if it is enough, all that follows is quick
            self._a_handful_of_operations()
            self._more_usual()
            self._fewer_faults()
            self._shorter()
            self._fewer_operations()
            self._fewer_nodes()
        candidate, recording, results = self._found
        return replay_of(recording, results, candidate.script), recording, results

    @property
    def size(self) -> Size:
        """Of the smallest one so far."""
        candidate, recording, _ = self._found
        operations = sum(op.type == "invoke" for op in recording.ops)
        return Size(len(candidate.plan.schedule), operations, len(candidate.plan.nodes))

    @property
    def _found(self) -> tuple[Candidate, Recording, Results]:
        assert self._best is not None
        return self._best

    # -- bold steps -----------------------------------------------------------------------------------------------

    def _beginning_alone(self) -> None:
        """End the run soon after the violation."""
        self._what = "the beginning alone"
        least, most = _LEAST_TIME, self._found[0].plan.time_limit
        while most - least > _LEAST_TIME / 2 and self._has_time():
            limit = round((least + most) / 2, 2)
            if self._try(until(self._found[0], limit), lucks=1):
                most = limit
            else:
                least = limit

    def _last_faults_alone(self) -> None:
        """Leave out what happened before the last few faults, and the time in which it did."""
        self._what = "the last faults alone"
        candidate = self._found[0]
        counts = range(1, min(_LAST_FAULTS, len(candidate.plan.schedule) - 1) + 1)
        moved = [last_faults(candidate, count) for count in counts]
        if self._lucky(lambda luck: moved, candidate.plan.seed):
            self._beginning_alone()

    def _a_handful_of_operations(self) -> None:
        """Draw a few operations, each at its time; what clients must contradict is not to be had that way."""
        candidate, recording, _ = self._found
        if self.size.operations <= _FEW or self._wanted == {"linearizable"}:
            return
        self._what = "a handful of operations"
        calls = [call for call in candidate.script or script_of(recording) if call.at is not None]
        if self._wanted == {"raft-invariants"}:
            calls = [call for call in calls if not call.request.is_read]  # reads leave no entries

        def drawn(luck: int) -> Iterator[Candidate]:
            for count in _HANDFULS:
                if count < len(calls):
                    random = Random(f"{candidate.plan.seed}:{count}:{luck}")
                    places = sorted(random.sample(range(len(calls)), count))
                    yield Candidate(candidate.plan, tuple(calls[place] for place in places))

        self._lucky(drawn, candidate.plan.seed)

    def _lucky(self, candidates: Callable[[int], Iterable[Candidate]], seed: int) -> bool:
        """Try each candidate under one seed after the other, until one shows the violation or patience ends."""
        end = self._clock() + self._patience
        for luck in range(_MOST_LUCKS):
            for candidate in candidates(luck):
                if self._clock() >= end or not self._has_time():
                    return False
                plan = replace(candidate.plan, seed=seed + _OTHER_SEED * luck)
                if self._try(replace(candidate, plan=plan), lucks=1):
                    return True
        return False

    # -- steps ----------------------------------------------------------------------------------------------------

    def _fewer_faults(self) -> None:
        self._what = "fewer faults"

        def holds(steps: Sequence[FaultStep]) -> bool:
            candidate = self._found[0]
            return self._try(replace(candidate, plan=replace(candidate.plan, schedule=tuple(steps))))

        smallest(self._found[0].plan.schedule, holds, self._has_time)

    def _more_usual(self) -> None:
        """Do without options of single nodes, and without rare points."""
        self._what = "more usual nodes"

        def with_options(nodes: Sequence[str]) -> bool:
            candidate = self._found[0]
            own = {node: candidate.plan.own_options[node] for node in nodes}
            return self._try(replace(candidate, plan=replace(candidate.plan, own_options=own)))

        def with_points(points: Sequence[str]) -> bool:
            candidate = self._found[0]
            armed = {point: candidate.plan.rare_points[point] for point in points}
            return self._try(replace(candidate, plan=replace(candidate.plan, rare_points=armed)))

        smallest(list(self._found[0].plan.rare_points), with_points, self._has_time)
        smallest(list(self._found[0].plan.own_options), with_options, self._has_time)

    def _shorter(self) -> None:
        """End the run sooner: the time of the last fault, or of the witness, is long enough."""
        self._what = "a shorter run"
        for share in (0.25, 0.5, 0.75):
            candidate = self._found[0]
            limit = round(max(1.0, candidate.plan.time_limit * share), 2)
            if limit >= candidate.plan.time_limit or not self._has_time():
                continue
            if self._try(until(candidate, limit)):
                return

    def _spell_out(self) -> None:
        candidate, recording, _ = self._found
        self._what = "operations one by one"
        if candidate.script is not None:
            return
        # Elections go wrong without any operation; clients see what is wrong with them by the last reads.
        script = script_of(recording)
        last = tuple(call for call in script if call.at is None)
        for some in (script,) if self._wanted == {"linearizable"} else ((), last, script):
            if self._try(replace(candidate, script=some), lucks=_LUCKS_OF_A_SCRIPT):
                return

    def _witness_alone(self) -> None:
        """Those that contradict each other may be enough; if not, then with all others of their keys."""
        candidate, recording, results = self._found
        if candidate.script is None:
            return
        self._what = "the witness alone"
        keys = _keys_of(results)
        own = [call for call in candidate.script if call.request.key in keys]
        for few in (witness_of(recording, results, candidate.script), own):
            fewer = 0 < len(few) < len(candidate.script)
            if fewer and self._has_time() and self._try(replace(candidate, script=tuple(few))):
                return

    def _fewer_operations(self) -> None:
        candidate = self._found[0]
        if candidate.script is None:
            return
        self._what = "fewer operations"

        def holds(calls: Sequence[Call]) -> bool:
            return self._try(replace(self._found[0], script=tuple(calls)))

        smallest(candidate.script, holds, self._has_time)

    def _fewer_nodes(self) -> None:
        self._what = "fewer nodes"
        for node in reversed(self._found[0].plan.nodes):
            candidate = self._found[0]
            plan = candidate.plan
            if len(plan.nodes) <= 2 or not self._has_time():
                return
            steps = tuple(replace(s, order=tuple(n for n in s.order if n != node)) for s in plan.schedule)
            nodes = tuple(name for name in plan.nodes if name != node)
            own = {name: options for name, options in plan.own_options.items() if name != node}
            self._try(replace(candidate, plan=replace(plan, nodes=nodes, schedule=steps, own_options=own)))

    # -- trials ---------------------------------------------------------------------------------------------------

    def _try(self, candidate: Candidate, *, lucks: int = _LUCKS) -> bool:
        """Whether a candidate shows the violation; if so it is the best."""
        for luck in range(lucks):
            plan = candidate.plan
            if luck:
                if candidate.script is None:
                    return False  # another seed would be other operations
                plan = replace(plan, seed=plan.seed + _OTHER_SEED * luck)
            if not self._has_time() and self._best is not None:
                return False
            self.trials += 1
            recording = self._simulator.run(plan, script=candidate.script)
            results = judge(recording)
            if results.validity == INVALID and self._wanted & {v.checker for v in violations_of(results.verdicts)}:
                self._best = (replace(candidate, plan=plan), recording, results)
                self._tell(self._what, self.size)
                return True
        return False

    def _has_time(self) -> bool:
        return self._clock() < self._until


def until(candidate: Candidate, limit: float) -> Candidate:
    """A run that ends sooner, `limit` seconds after the clients started; until then nothing is another."""
    steps = tuple(replace(s, until=min(s.until, limit)) for s in candidate.plan.schedule if s.at < limit - 0.05)
    script = candidate.script
    if script is not None:
        script = tuple(call for call in script if call.at is None or call.at <= limit)
    return Candidate(replace(candidate.plan, time_limit=limit, schedule=steps), script)


def last_faults(candidate: Candidate, count: int) -> Candidate:
    """A run of the last `count` faults, a little after its beginning."""
    steps = sorted(candidate.plan.schedule, key=lambda step: step.at)[-count:]
    sooner = max(0.0, steps[0].at - _CALM)
    moved = tuple(replace(s, at=round(s.at - sooner, 4), until=round(s.until - sooner, 4)) for s in steps)
    plan = replace(candidate.plan, schedule=moved, time_limit=round(candidate.plan.time_limit - sooner, 4))
    if candidate.script is None:
        return Candidate(plan, None)
    calls = (call for call in candidate.script if call.at is None or call.at >= sooner)
    return Candidate(plan, tuple(call if call.at is None else replace(call, at=call.at - sooner) for call in calls))


def smallest(items: Sequence[_T], holds: Callable[[Sequence[_T]], bool], goes_on: Callable[[], bool]) -> Sequence[_T]:
    """Delta debugging: a part of `items` that holds, and of which no piece that was tried can be left out.

    Parameters:
        items: of which the whole holds.
        holds: whether a part does.
        goes_on: there is still time.
    """
    if items and goes_on() and holds(()):
        return ()
    pieces = 2
    while len(items) >= 2 and goes_on():
        length = max(1, len(items) // pieces)
        for start in range(0, len(items), length):
            rest = [*items[:start], *items[start + length :]]
            if rest and goes_on() and holds(rest):
                items, pieces = rest, max(2, pieces - 1)
                break
        else:
            if length == 1:
                break
            pieces = min(len(items), pieces * 2)
    return items


def script_of(recording: Recording) -> tuple[Call, ...]:
    """The operations of a run, one by one."""
    phases = {event.message: event.time for event in recording.events if event.kind == "phase"}
    begin, reads = phases["clients"], _final_reads(phases)

    def call(op: Op) -> Call:
        assert isinstance(op.process, int)
        at = (op.time - begin) / SECOND if op.time < reads else None
        return Call(at, op.process % recording.plan.concurrency, Request(op.f, op.key, op.value))

    return tuple(call(op) for op in recording.ops if op.type == "invoke")


def _final_reads(phases: Mapping[str, int]) -> float:
    """When they began; never, where the run was cut off before."""
    return phases.get("final-reads", math.inf)


def witness_of(recording: Recording, results: Results, script: Sequence[Call]) -> list[Call]:
    """The operations of a script that contradict each other, as far as a verdict names them."""
    phases = {event.message: event.time for event in recording.events if event.kind == "phase"}
    begin, reads = phases["clients"], _final_reads(phases)
    found: dict[int, Call] = {}
    for verdict in results.verdicts:
        witness = verdict.details.get("witness")
        if not isinstance(witness, dict):
            continue
        for operation in witness["operations"]:
            worker, time = operation["process"] % recording.plan.concurrency, operation["call"]
            alike = [
                (abs((reads if call.at is None else begin + call.at * SECOND) - time), place)
                for place, call in enumerate(script)
                if (call.worker, call.request.f, call.request.key) == (worker, operation["f"], witness["key"])
            ]
            if alike:
                place = min(alike)[1]
                found[place] = script[place]
    return [call for _, call in sorted(found.items())]


def _keys_of(results: Results) -> set[str]:
    """The keys on which operations contradict each other."""
    for verdict in results.verdicts:
        keys = verdict.details.get("keys")
        if isinstance(keys, dict):
            return {key for key, found in keys.items() if found["validity"] == INVALID}
    return set()
