"""Making a violation small: fewer faults, fewer operations, fewer nodes, while the same violation stays.

Theory of operation
-------------------
A candidate is a plan with its schedule spelled out, and from some moment on a script: the operations of the run, one by
one, in place of the generators that made them. To take a step or an operation out is to try the rest. Delta debugging
(Zeller and Hildebrandt 2002) takes out halves, then quarters, and so on.

Every change also changes the luck of what follows: a message that is not sent moves the draws of those behind it. With
schedule and operations spelled out the seed decides about that luck alone, so that each candidate is tried under a few
seeds, and counts when one of them shows the violation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Size:
    """How large a counterexample is."""

    faults: int
    operations: int
    nodes: int


@dataclass(frozen=True, slots=True)
class _Candidate:
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
        self._tell = tell
        self._first = _Candidate(replay.plan, replay.script)
        self._best: tuple[_Candidate, Recording, Results] | None = None
        self._what = "as it was"
        self.trials = 0

    def shrink(self) -> tuple[Replay, Recording, Results] | None:
        """The smallest counterexample that was found, its recording and its verdicts; None: it does not repeat."""
        if not self._try(self._first, lucks=1):
            return None
        before = None
        while before != self.size and self._has_time():
            before = self.size
            self._spell_out()
            self._witness_alone()  # if it is enough, all that follows is quick
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
    def _found(self) -> tuple[_Candidate, Recording, Results]:
        assert self._best is not None
        return self._best

    # -- steps ----------------------------------------------------------------------------------------------------

    def _fewer_faults(self) -> None:
        self._what = "fewer faults"

        def holds(steps: Sequence[FaultStep]) -> bool:
            candidate = self._found[0]
            return self._try(replace(candidate, plan=replace(candidate.plan, schedule=tuple(steps))))

        smallest(self._found[0].plan.schedule, holds, self._has_time)

    def _shorter(self) -> None:
        """End the run sooner: the time of the last fault, or of the witness, is long enough."""
        self._what = "a shorter run"
        for share in (0.25, 0.5, 0.75):
            candidate = self._found[0]
            limit = round(max(1.0, candidate.plan.time_limit * share), 2)
            if limit >= candidate.plan.time_limit or not self._has_time():
                continue
            steps = tuple(replace(s, until=min(s.until, limit)) for s in candidate.plan.schedule if s.at < limit - 0.05)
            script = candidate.script
            if script is not None:
                script = tuple(call for call in script if call.at is None or call.at <= limit)
            if self._try(_Candidate(replace(candidate.plan, time_limit=limit, schedule=steps), script)):
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
            self._try(replace(candidate, plan=replace(plan, nodes=nodes, schedule=steps)))

    # -- trials ---------------------------------------------------------------------------------------------------

    def _try(self, candidate: _Candidate, *, lucks: int = _LUCKS) -> bool:
        """Whether a candidate shows the violation; if so it is the best."""
        for luck in range(lucks):
            plan = candidate.plan
            if luck:
                if candidate.script is None:
                    return False  # another seed would be other operations
                plan = replace(plan, seed=plan.seed + 1_000_003 * luck)
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
    begin, reads = phases["clients"], phases["final-reads"]

    def call(op: Op) -> Call:
        assert isinstance(op.process, int)
        at = (op.time - begin) / SECOND if op.time < reads else None
        return Call(at, op.process % recording.plan.concurrency, Request(op.f, op.key, op.value))

    return tuple(call(op) for op in recording.ops if op.type == "invoke")


def witness_of(recording: Recording, results: Results, script: Sequence[Call]) -> list[Call]:
    """The operations of a script that contradict each other, as far as a verdict names them."""
    phases = {event.message: event.time for event in recording.events if event.kind == "phase"}
    begin, reads = phases["clients"], phases["final-reads"]
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
