"""From a seed to an explicit schedule of faults. Pure; the schedule is data, is recorded, and can be replayed.

A schedule is a row of scenes with quiet gaps between them in which the cluster can recover. A plain scene is one fault
of one shape; a situation is several that overlap, and breaks systems which survive each of them alone. Both are dealt
in turn, each from a shuffled deck of its own, so that a long run sees all of them, and a short one a fair choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from raftbed.errors import PlanError
from raftbed.faults.shapes import KILL_SHAPES, MOMENT_SHAPES, PARTITION_SHAPES
from raftbed.model import FaultStep

SHAPES = {"partition": tuple(PARTITION_SHAPES), "kill": tuple(KILL_SHAPES)}
SIMULATED_SHAPES = {
    **dict.fromkeys(
        (
            "pause",
            "power",
            "loss",
            "duplicate",
            "delay",
            "clog",
            "slow-disk",
            "full-disk",
            "bad-disk",
            "clock",
            "membership",
            "transfer",
        ),
        tuple(KILL_SHAPES),
    ),
    "moment": tuple(MOMENT_SHAPES),
    **dict.fromkeys(("reset", "hang-up", "hasty-clients", "slow-clients", "terminate"), tuple(KILL_SHAPES)),
}
"""Kinds of fault that only the simulator has, the last ones with whole nodes only, and their shapes."""
STRENGTHS: Mapping[str, Sequence[str]] = {
    "loss": ("share",),
    "duplicate": ("share",),
    "delay": ("least_ms", "most_ms", "share"),
    "slow-disk": ("factor",),
    "clock": ("ppm",),
    "membership": ("for_good",),
    "moment": ("chance", "within_ms", "strikes", "lasting_ms"),
}
"""What a step may say of how strong its fault is (`FaultStep.options`); the simulator draws what it does not say."""
_CALM_START = 1.0
_CALM_END = 2.0
_GAP = (1.5, 2.0)
_LEAST_UNIT = 1.0  # seconds; a fault that is over before anybody is elected shows little


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


def _longer(random: Random, timeout: float) -> float:
    return random.uniform(1.15, 1.6) * timeout


def _shorter(random: Random, timeout: float) -> float:
    return random.uniform(0.4, 0.8) * timeout


def _either(random: Random, timeout: float) -> float:
    return random.choice((_longer, _shorter))(random, timeout)


def _alone(kind: str, shape: str, lasting: Callable[[Random, float], float] = _either) -> Scene:
    def scene(random: Random, timeout: float) -> list[Beat]:
        return [Beat(kind, shape, 0.0, lasting(random, timeout), "")]

    return scene


def _handed_over(first: str, second: str) -> Scene:
    def scene(random: Random, timeout: float) -> list[Beat]:
        turn = _longer(random, timeout)
        end = turn + _either(random, timeout)
        return [
            Beat("partition", first, 0.0, turn, "followed by another with no heal between"),
            Beat("partition", second, turn - 0.3, end, "in place before the one before it is healed"),
        ]

    return scene


def _laggards_return(first: str, second: str, shape: str) -> Scene:
    def scene(random: Random, timeout: float) -> list[Beat]:
        # Injecting takes as long as finding the leader and a command on each host; healing is one command. Begun 0.1 s
        # before, the leader is lost as the laggards come back, and before it can bring them up to date.
        back = _longer(random, timeout)
        return [
            Beat(first, "followers-minority", 0.0, back, "followers fall behind"),
            Beat(second, shape, back - 0.1, back + 1.2 * timeout, "the leader is lost just as they come back"),
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
        length = _longer(random, timeout)
        return [
            Beat("partition", shape, 0.0, length, "with a node killed on one side"),
            Beat("kill", "one", 0.3 * length, length + 0.5 * timeout, "killed within a partition"),
        ]

    return scene


_PLAIN: dict[str, tuple[Scene, ...]] = {
    "partition": (
        _alone("partition", "leader-alone", _longer),
        _alone("partition", "leader-minority", _longer),
        _alone("partition", "leader-deaf", _longer),
        _alone("partition", "leader-deaf", _shorter),
        _alone("partition", "leader-mute"),
        _alone("partition", "one"),
        _alone("partition", "halves"),
        _alone("partition", "majorities-ring"),
        _alone("partition", "bridge"),
        _alone("partition", "one-way"),
    ),
    "kill": (
        _alone("kill", "leader"),
        _alone("kill", "leader", _shorter),
        _alone("kill", "all", _shorter),
        _alone("kill", "one"),
        _alone("kill", "minority"),
        _alone("kill", "majority", _shorter),
    ),
}
_SITUATIONS: dict[str, tuple[Scene, ...]] = {
    "partition": (
        # With the leader goes a follower that is up to date: the laggards are most of the quorum that is left.
        _laggards_return("partition", "partition", "leader-minority"),
        _laggards_return("partition", "partition", "leader-minority"),
        _laggards_return("partition", "partition", "leader-alone"),
        _handed_over("leader-minority", "halves"),
        _handed_over("leader-deaf", "majorities-ring"),
        _handed_over("leader-deaf", "leader-alone"),
    ),
    "kill": (
        _leaders_in_a_row,
        _uncommitted_tail,
        _uncommitted_tail,
        _laggards_return("kill", "kill", "leader"),
    ),
    "both": (
        _laggards_return("partition", "kill", "leader"),
        _kill_in_partition("halves"),
        _kill_in_partition("leader-minority"),
        _kill_in_partition("leader-alone"),
    ),
}


def make_schedule(
    faults: Sequence[str], *, nodes: Sequence[str], time_limit: float, operation_timeout: float, seed: int
) -> tuple[FaultStep, ...]:
    """The schedule that a seed stands for.

    Parameters:
        faults: kinds of fault to choose from; none makes an empty schedule. With one that only the simulator has, the
            schedule is made by :func:`raftbed.chaos.make_chaos`.
        nodes: names of the nodes.
        time_limit: seconds during which clients work. The first second is calm, and so are the last two (less in runs
            shorter than ten seconds).
        operation_timeout: the clients' time-out in seconds; faults last shorter and longer than it, as far as that
            fits the run.
        seed: any integer.
    """
    if not faults or len(nodes) < 2:
        return ()
    if any(kind in SIMULATED_SHAPES for kind in faults):
        from raftbed.chaos import make_chaos

        return make_chaos(faults, nodes=nodes, time_limit=time_limit, operation_timeout=operation_timeout, seed=seed)
    random = Random(f"{seed}:schedule")
    unit = min(max(operation_timeout, _LEAST_UNIT), max(time_limit / 8, _LEAST_UNIT))
    scenes = _deal(random, faults)
    at = min(_CALM_START, time_limit * 0.15)
    end = time_limit - min(_CALM_END, time_limit * 0.2)
    steps: list[FaultStep] = []
    missed = 0
    while missed < 20:
        beats = next(scenes)(random, unit)
        length = max(beat.end for beat in beats)
        if at + length > end:
            missed += 1  # this scene does not fit any more; a shorter one may
            continue
        order = random.sample(list(nodes), len(nodes))
        made = [_step(beat, at, order, operation_timeout) for beat in beats]
        if not all(strikes(step) for step in made):
            missed += 1  # a ring of two cuts nothing
            continue
        steps += made
        at += length + random.uniform(*_GAP)
    if not steps:  # a run shorter than any scene still has one fault
        kind = "partition" if "partition" in faults else "kill"
        shape = "leader-alone" if kind == "partition" else "leader"
        beat = Beat(kind, shape, 0.0, time_limit * 0.5, "the run is too short for more")
        steps = [_step(beat, at, random.sample(list(nodes), len(nodes)), operation_timeout)]
    return numbered(steps)


def validate_schedule(steps: Sequence[FaultStep], *, nodes: Sequence[str], time_limit: float) -> tuple[FaultStep, ...]:
    """A schedule written by hand, in order of time, if it can be executed.

    Raises:
        PlanError: names the step by its position, the field, and what to write instead.
    """
    seen: set[str] = set()
    shapes = {**SHAPES, **SIMULATED_SHAPES}
    for number, step in enumerate(steps):
        where = f"schedule[{number}]"
        if step.kind not in shapes:
            raise PlanError(f"{where}.kind: there is no fault {step.kind!r}.", remedy=f"There are: {_some(shapes)}.")
        if step.shape not in shapes[step.kind]:
            known = _some(shapes[step.kind])
            raise PlanError(f"{where}.shape: {step.kind} has no shape {step.shape!r}.", remedy=f"It has: {known}.")
        for name in step.options:
            if name not in (known_options := STRENGTHS.get(step.kind, ())):
                raise PlanError(
                    f"{where}.options: {step.kind} has no {name!r}.",
                    remedy=f"It has: {_some(known_options) or 'none'}.",
                )
        if not 0 <= step.at < step.until <= time_limit:
            raise PlanError(
                f"{where}: at {step.at:g} until {step.until:g} does not fit the run.",
                remedy=f"Write 0 <= at < until <= {time_limit:g}, in seconds after the clients start.",
            )
        if sorted(step.order) != sorted(nodes):
            raise PlanError(
                f"{where}.order: must hold every node exactly once.", remedy=f"The nodes are: {' '.join(nodes)}."
            )
        if not strikes(step):
            raise PlanError(
                f"{where}.shape: {step.shape!r} strikes nobody among {len(nodes)} nodes.",
                remedy="Choose another shape, or more nodes.",
            )
        if not step.id or step.id in seen:
            raise PlanError(f"{where}.id: {step.id!r} is empty or was used before.", remedy="Number them: f01, f02.")
        if not step.id.isascii() or not step.id.isalnum() or len(step.id) > 12:
            raise PlanError(f"{where}.id: {step.id!r} is not of letters and digits.", remedy="Number them: f01, f02.")
        seen.add(step.id)
    return tuple(sorted(steps, key=lambda step: step.at))


def strikes(step: FaultStep) -> bool:
    """The shape strikes anybody, among so many nodes."""
    if step.kind == "partition":
        return any(PARTITION_SHAPES[step.shape](step.order).values())
    return step.kind == "moment" or bool(KILL_SHAPES[step.shape](step.order))


def _some(names: Iterable[str]) -> str:
    return ", ".join(names)


def _deal(random: Random, faults: Sequence[str]) -> Iterator[Scene]:
    """Scenes without end, situations and plain ones in turn, each from a deck that is shuffled again and again."""
    kinds = [kind for kind in SHAPES if kind in faults]
    plain = [scene for kind in kinds for scene in _PLAIN[kind]]
    groups = [*kinds, "both"] if len(kinds) > 1 else kinds
    situations = [scene for group in groups for scene in _SITUATIONS[group]]
    decks = [_shuffled(random, situations), _shuffled(random, plain)]
    random.shuffle(decks)
    while True:
        for deck in decks:
            yield next(deck)


def _shuffled(random: Random, deck: Sequence[Scene]) -> Iterator[Scene]:
    while True:
        yield from random.sample(deck, len(deck))


def _step(beat: Beat, at: float, order: Sequence[str], operation_timeout: float) -> FaultStep:
    begin, end = round(at + beat.begin, 3), round(at + beat.end, 3)
    compared = "longer" if end - begin > operation_timeout else "shorter"
    why = beat.why or f"{compared} than the clients' time-out"
    return FaultStep("", beat.kind, beat.shape, begin, end, tuple(order), why)


def numbered(steps: Sequence[FaultStep]) -> tuple[FaultStep, ...]:
    """Steps in order of time, named f01, f02, ..."""
    ordered = sorted(steps, key=lambda step: step.at)
    return tuple(replace(step, id=f"f{number:02d}") for number, step in enumerate(ordered, start=1))
