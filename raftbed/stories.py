"""Schedules from stories: the few faults that a planted bug needs, at moments that a seed decides. Pure.

A dealt schedule meets what a bug needs by luck; a story says what that is. It is still no recording: which nodes it
strikes, and when exactly, is drawn anew each time that it is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from raftbed.bugs import Beat, Story
from raftbed.model import FaultStep
from raftbed.schedule import numbered, strikes

_CALM_END = 0.3  # seconds
_MOST_STEPS = 99


def make_story(story: Story, *, nodes: Sequence[str], time_limit: float, seed: int) -> tuple[FaultStep, ...]:
    """The schedule that a seed stands for: the story, as often as the time allows.

    Parameters:
        story: what to tell.
        nodes: names of the nodes.
        time_limit: seconds during which clients work; faults that would end later are left out.
        seed: any integer.
    """
    random = Random(f"{seed}:story")
    steps: list[FaultStep] = []
    begin = story.begin
    while begin < time_limit and len(steps) < _MOST_STEPS:
        order = random.sample(list(nodes), len(nodes))
        steps += [_step(random, beat, begin, order) for beat in story.beats]
        if not story.every:
            break
        begin += story.every
    end = time_limit - _CALM_END
    return numbered([step for step in steps if step.until <= end and strikes(step)][:_MOST_STEPS])


def _step(random: Random, beat: Beat, begin: float, order: Sequence[str]) -> FaultStep:
    at = begin + random.uniform(*beat.begin)
    until = at + random.uniform(*beat.lasts)
    taken = tuple(reversed(order) if beat.backwards else order)
    return FaultStep("", beat.kind, beat.shape, round(at, 4), round(until, 4), taken, "part of a story", beat.options)
