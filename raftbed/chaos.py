"""Schedules for the simulator: many faults of all kinds, one on top of the other. Pure, like :mod:`raftbed.schedule`.

Real systems fail where troubles meet. A chaos schedule lays short faults of shuffled kinds over each other, without
looking whether a quorum is left, and, where its kinds are among those, one of the scenes of the ordinary schedule on
top. The beginning and the end are calm, so that every seed also says whether the cluster recovers.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from raftbed.faults.shapes import KILL_SHAPES, PARTITION_SHAPES
from raftbed.model import FaultStep
from raftbed.schedule import SHAPES, SIMULATED_SHAPES, make_schedule, numbered, strikes

_CALM_START = 0.5
_CALM_END = 1.5
_LENGTHS = (0.25, 0.25, 0.6, 1.2, 2.5)  # seconds
_SMALL = ("one", "leader", "leader", "minority")
_PER_SECOND = 0.8
_SCENE_CHANCE = 0.4


def make_chaos(
    faults: Sequence[str], *, nodes: Sequence[str], time_limit: float, operation_timeout: float, seed: int
) -> tuple[FaultStep, ...]:
    """The schedule that a seed stands for. Parameters are those of :func:`raftbed.schedule.make_schedule`."""
    random = Random(f"{seed}:chaos")
    begin = min(_CALM_START, time_limit * 0.1)
    end = time_limit - min(_CALM_END, time_limit * 0.2)
    ordinary = [kind for kind in SHAPES if kind in faults]
    steps: list[FaultStep] = []
    if ordinary and random.random() < _SCENE_CHANCE:
        scenes = make_schedule(
            ordinary, nodes=nodes, time_limit=time_limit, operation_timeout=operation_timeout, seed=seed
        )
        steps += [step for step in scenes if step.until <= end]
    # A seed has a few kinds of trouble, not all of them: they get to work without each other, too.
    kinds = random.sample(list(faults), random.randint(1, len(faults)))
    for _ in range(max(1, round((end - begin) * _PER_SECOND * random.uniform(0.4, 1.6)))):
        steps.append(_step(random, random.choice(kinds), nodes, begin, end))
    return numbered([step for step in steps if strikes(step)])


def _step(random: Random, kind: str, nodes: Sequence[str], begin: float, end: float) -> FaultStep:
    length = min(random.choice(_LENGTHS) * random.uniform(0.8, 1.5), (end - begin) / 2)
    at = random.uniform(begin, end - length)
    order = tuple(random.sample(list(nodes), len(nodes)))
    return FaultStep("", kind, _shape(random, kind), round(at, 3), round(at + length, 3), order, "by chance")


def _shape(random: Random, kind: str) -> str:
    if kind == "partition":
        return random.choice(list(PARTITION_SHAPES))
    if kind == "moment":
        return random.choice(SIMULATED_SHAPES[kind])
    # Half of them leave a quorum alone: else little would be acknowledged that could be lost.
    return random.choice(_SMALL if random.random() < 0.5 else list(KILL_SHAPES))
