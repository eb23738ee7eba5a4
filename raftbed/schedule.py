"""From a seed to an explicit schedule of faults. Pure; the schedule is data, is recorded, and can be replayed.

A schedule is a row of scenes with quiet gaps between them in which the cluster can recover. A scene is one fault, or
several that overlap to make a situation that breaks systems which survive each of them alone. Scenes are dealt from a
shuffled deck, so that a run long enough sees all of them, and a short one a fair choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from raftbed.errors import PlanError
from raftbed.faults.shapes import KILL_SHAPES, PARTITION_SHAPES
from raftbed.model import FaultStep

SHAPES = {"partition": tuple(PARTITION_SHAPES), "kill": tuple(KILL_SHAPES)}
_CALM_START = 1.0
_CALM_END = 1.5


@dataclass(frozen=True, slots=True)
class Beat:
    """One fault of a scene: when it begins and ends, in seconds from the scene's beginning."""

    kind: str
    shape: str
    begin: float
    end: float
    why: str


Scene = Callable[[Random, float], list[Beat]]
"""Makes the beats of a scene, given what to draw from and the clients' time-out in seconds."""


def _lasting(random: Random, timeout: float, *, longer: bool | None = None) -> float:
    """A duration shorter or longer than the clients' time-out."""
    chosen = random.random() < 0.6 if longer is None else longer
    return random.uniform(1.2, 1.8) * timeout if chosen else random.uniform(0.4, 0.8) * timeout


def _alone(kind: str, shape: str, *, longer: bool | None = None) -> Scene:
    def scene(random: Random, timeout: float) -> list[Beat]:
        length = _lasting(random, timeout, longer=longer)
        compared = "longer" if length > timeout else "shorter"
        return [Beat(kind, shape, 0.0, length, f"{compared} than the clients' time-out")]

    return scene


def _handed_over(first: str, second: str) -> Scene:
    def scene(random: Random, timeout: float) -> list[Beat]:
        turn = _lasting(random, timeout, longer=True)
        end = turn + _lasting(random, timeout)
        return [
            Beat("partition", first, 0.0, turn, "followed by another with no heal between"),
            Beat("partition", second, turn - 0.3, end, "in place before the one before it is healed"),
        ]

    return scene


def _laggards_return(kind: str, shape: str) -> Scene:
    def scene(random: Random, timeout: float) -> list[Beat]:
        back = _lasting(random, timeout, longer=True)
        lag = "followers fall behind"
        return [
            Beat("partition", "followers-minority", 0.0, back, lag),
            Beat(kind, shape, back - 0.05, back + 1.2 * timeout, "the leader is lost just as they come back"),
        ]

    return scene


def _leaders_in_a_row(random: Random, timeout: float) -> list[Beat]:
    gap = random.uniform(0.8, 1.1) * timeout
    return [
        Beat("kill", "leader", 0.0, gap + 0.5 * timeout, "a leader is killed"),
        Beat("kill", "leader", gap, gap + timeout, "and then the one elected after it"),
    ]


def _uncommitted_tail(random: Random, timeout: float) -> list[Beat]:
    alone = random.uniform(0.3, 0.6) * timeout
    back = alone + random.uniform(0.4, 0.7) * timeout
    return [
        Beat("kill", "followers-majority", 0.0, back, "the leader takes writes that it cannot commit"),
        Beat("kill", "leader", alone, back + 0.6 * timeout, "and restarts with them after the others went on"),
    ]


def _kill_in_partition(shape: str) -> Scene:
    def scene(random: Random, timeout: float) -> list[Beat]:
        length = _lasting(random, timeout, longer=True)
        return [
            Beat("partition", shape, 0.0, length, "with a node killed on one side"),
            Beat("kill", "one", 0.3 * length, length + 0.5 * timeout, "killed within a partition"),
        ]

    return scene


_PARTITION_DECK: tuple[Scene, ...] = (
    _alone("partition", "leader-alone", longer=True),
    _alone("partition", "leader-minority", longer=True),
    _alone("partition", "leader-deaf", longer=True),
    _alone("partition", "leader-deaf", longer=False),
    _alone("partition", "leader-mute"),
    _laggards_return("partition", "leader-alone"),
    _laggards_return("partition", "leader-alone"),
    _handed_over("leader-minority", "halves"),
    _handed_over("majorities-ring", "leader-alone"),
    _alone("partition", "one"),
    _alone("partition", "halves"),
    _alone("partition", "majorities-ring"),
    _alone("partition", "bridge"),
    _alone("partition", "one-way"),
)
_KILL_DECK: tuple[Scene, ...] = (
    _alone("kill", "leader"),
    _alone("kill", "all", longer=False),
    _leaders_in_a_row,
    _uncommitted_tail,
    _alone("kill", "one"),
    _alone("kill", "minority"),
    _alone("kill", "majority", longer=False),
)
_BOTH_DECK: tuple[Scene, ...] = (
    _laggards_return("kill", "leader"),
    _kill_in_partition("halves"),
    _kill_in_partition("leader-minority"),
)


def make_schedule(
    faults: Sequence[str], *, nodes: Sequence[str], time_limit: float, operation_timeout: float, seed: int
) -> tuple[FaultStep, ...]:
    """The schedule that a seed stands for.

    Parameters:
        faults: kinds of fault to choose from: "partition", "kill"; none makes an empty schedule.
        nodes: names of the nodes.
        time_limit: seconds during which clients work. The first second is calm, and so are the last 1.5.
        operation_timeout: the clients' time-out in seconds; faults last shorter and longer than it.
        seed: any integer.
    """
    if not faults or len(nodes) < 2:
        return ()
    random = Random(f"{seed}:schedule")
    deck = _deal(random, _deck(faults))
    end = time_limit - _CALM_END
    at = _CALM_START if time_limit >= 8 else time_limit * 0.15
    steps: list[FaultStep] = []
    missed = 0
    while missed < 20:
        beats = next(deck)(random, operation_timeout)
        if at + max(beat.end for beat in beats) > end:
            missed += 1  # this scene does not fit any more; a shorter one may
            continue
        order = random.sample(list(nodes), len(nodes))
        steps += [_step(beat, at, order) for beat in beats]
        at += max(beat.end for beat in beats) + random.uniform(0.8, 1.3) * min(operation_timeout, 2.0)
    if not steps:  # a run shorter than any scene still has one fault
        kind = "partition" if "partition" in faults else "kill"
        length = time_limit * 0.5
        shape = "leader-alone" if kind == "partition" else "leader"
        order = random.sample(list(nodes), len(nodes))
        steps = [_step(Beat(kind, shape, 0.0, length, "the run is too short for more"), time_limit * 0.15, order)]
    return _numbered(steps)


def validate_schedule(steps: Sequence[FaultStep], *, nodes: Sequence[str], time_limit: float) -> tuple[FaultStep, ...]:
    """A schedule written by hand, in order of time, if it can be executed.

    Raises:
        PlanError: names the step by its position, the field, and what to write instead.
    """
    seen: set[str] = set()
    for number, step in enumerate(steps):
        where = f"schedule[{number}]"
        if step.kind not in SHAPES:
            raise PlanError(f"{where}.kind: there is no fault {step.kind!r}.", remedy=f"There are: {_some(SHAPES)}.")
        if step.shape not in SHAPES[step.kind]:
            known = _some(SHAPES[step.kind])
            raise PlanError(f"{where}.shape: {step.kind} has no shape {step.shape!r}.", remedy=f"It has: {known}.")
        if not 0 <= step.at < step.until <= time_limit:
            raise PlanError(
                f"{where}: at {step.at:g} until {step.until:g} does not fit the run.",
                remedy=f"Write 0 <= at < until <= {time_limit:g}, in seconds after the clients start.",
            )
        if sorted(step.order) != sorted(nodes):
            raise PlanError(
                f"{where}.order: must hold every node exactly once.", remedy=f"The nodes are: {' '.join(nodes)}."
            )
        if not step.id or step.id in seen:
            raise PlanError(f"{where}.id: {step.id!r} is empty or was used before.", remedy="Number them: f01, f02.")
        if not step.id.isascii() or not step.id.isalnum() or len(step.id) > 12:
            raise PlanError(f"{where}.id: {step.id!r} is not of letters and digits.", remedy="Number them: f01, f02.")
        seen.add(step.id)
    return tuple(sorted(steps, key=lambda step: step.at))


def _some(names: Sequence[str] | dict[str, tuple[str, ...]]) -> str:
    return ", ".join(names)


def _deck(faults: Sequence[str]) -> tuple[Scene, ...]:
    deck: tuple[Scene, ...] = ()
    if "partition" in faults:
        deck += _PARTITION_DECK
    if "kill" in faults:
        deck += _KILL_DECK
    if "partition" in faults and "kill" in faults:
        deck += _BOTH_DECK
    return deck


def _deal(random: Random, deck: tuple[Scene, ...]) -> Iterator[Scene]:
    """Scenes without end: the deck shuffled, again and again."""
    while True:
        yield from random.sample(deck, len(deck))


def _step(beat: Beat, at: float, order: Sequence[str]) -> FaultStep:
    begin, end = round(at + beat.begin, 3), round(at + beat.end, 3)
    return FaultStep("", beat.kind, beat.shape, begin, end, tuple(order), beat.why)


def _numbered(steps: Sequence[FaultStep]) -> tuple[FaultStep, ...]:
    ordered = sorted(steps, key=lambda step: step.at)
    return tuple(replace(step, id=f"f{number:02d}") for number, step in enumerate(ordered, start=1))
