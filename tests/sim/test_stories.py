"""Stories of planted bugs: they expose the bug, and nothing where it is not planted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sim_support import broken, judged, plan_of, step

from raftbed import bugs
from raftbed.bugs import Beat, Story
from raftbed.errors import PlanError
from raftbed.plan import make_plan
from raftbed.sim.hunting import settings_of
from raftbed.sim.simulation import Simulation
from raftbed.stories import make_story

NODES = ("n1", "n2", "n3")
TOLD = [name for name in bugs.names() if bugs.load(name).simulation.story is not None]
BY_TRACES = ("old-vote-counted", "snapshot-drops-newer-suffix", "vote-cleared-on-step-down")
"""Clients are not known to see these."""


def untroubled(name: str, seed: int) -> list[str]:
    """What is found in a scenario without its bug."""
    plan = make_plan(settings_of(bugs.load(name), seed=seed, planted=False), seed=seed)
    assert plan.bug is None
    assert plan.schedule
    return broken(judged(Simulation(plan).run()))


@pytest.mark.parametrize("name", TOLD)
def test_without_its_bug_a_story_breaks_nothing(name):
    for seed in range(2):
        assert untroubled(name, seed) == []


@pytest.mark.soak
@pytest.mark.parametrize("name", TOLD)
def test_without_its_bug_a_story_breaks_nothing_in_many_seeds(name):
    for seed in range(1000, 1050):
        assert untroubled(name, seed) == [], seed


@pytest.mark.parametrize("name", [name for name in TOLD if name not in BY_TRACES])
def test_clients_see_the_bug(name, tmp_path):
    assert hunted(name, tmp_path, "--clients")["by_clients"]


@pytest.mark.parametrize("name", BY_TRACES)
def test_the_traces_show_the_bug(name, tmp_path):
    assert hunted(name, tmp_path)["invariants"]


def hunted(name: str, store: Path, *options: str) -> dict[str, Any]:
    """A hunt for one bug, as `raftbed bugs` reports it."""
    bounds = ["--seeds", "60", "--budget", "30", "--jobs", "1"]
    command = ["bugs", name, *bounds, "--json", "--store", str(store), *options]
    ended = subprocess.run([sys.executable, "-m", "raftbed.cli", *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    (hunt,) = json.loads(ended.stdout)["bugs"]
    assert isinstance(hunt, dict)
    return hunt


def test_a_story_is_told_again_with_other_nodes_as_long_as_there_is_time():
    story = Story(
        (Beat("kill", "one", (0.0, 0.5), (0.5, 0.5)), Beat("pause", "all", (1.0, 1.0), (0.2, 0.2))), every=2.0
    )
    steps = make_story(story, nodes=NODES, time_limit=8.0, seed=1)
    kills = [step for step in steps if step.kind == "kill"]
    assert [step.id for step in steps] == [f"f{number:02d}" for number in range(1, len(steps) + 1)]
    assert len(kills) == 4
    assert len({step.order for step in kills}) > 1
    assert all(round(step.until - step.at, 3) == 0.5 for step in kills)
    assert max(step.until for step in steps) <= 8.0
    assert make_story(story, nodes=NODES, time_limit=8.0, seed=1) == steps
    assert make_story(story, nodes=NODES, time_limit=8.0, seed=2) != steps


def test_a_story_without_a_period_is_told_once():
    (step,) = make_story(Story((Beat("kill", "one", (0, 0), (1, 1)),)), nodes=NODES, time_limit=60.0, seed=1)
    assert (step.at, step.until) == (0.4, 1.4)


def test_a_beat_may_take_the_nodes_backwards():
    beats = (Beat("kill", "one", (0, 0), (1, 1)), Beat("kill", "one", (0, 0), (1, 1), backwards=True))
    first, second = make_story(Story(beats), nodes=NODES, time_limit=5.0, seed=1)
    assert first.order == second.order[::-1]


def test_options_of_a_fault_take_the_place_of_what_is_drawn():
    schedule = [
        step("delay", "all", 0.5, 1.0, number=1, least_ms=1, most_ms=2, share=0.5),
        step("clock", "one", 0.5, 1.0, number=2, ppm=-100_000),
        step("slow-disk", "one", 0.5, 1.0, number=3, factor=7),
        step("loss", "one", 0.5, 1.0, number=4, share=0.25),
    ]
    recording = Simulation(plan_of(time_limit=2.0, schedule=schedule)).run()
    details = {event.kind: event.detail for event in recording.faults if event.state == "injected"}
    assert tuple(details["delay"]["delay"]) == (1_000_000, 2_000_000, 0.5)
    assert details["clock"]["set"]["n1"] == {"ppm": -100_000, "ahead": 0}
    assert details["slow-disk"]["slower"]["n1"] == 7
    assert details["loss"]["loss"] == 0.25


def test_a_struck_node_comes_back_before_its_step_is_over():
    armed = step("moment", "kill-at-append", 0.5, 4.0, chance=1.0, lasting_ms=100, strikes=1)
    recording = Simulation(plan_of(time_limit=5.0, schedule=[armed])).run()
    boots = [time for trace in recording.traces.values() for time, event, _ in trace if event == "boot"]
    assert len(boots) == 6
    assert max(boots) < 1.5e9


def test_an_option_that_a_fault_does_not_have_is_refused():
    wrong = step("clock", "one", 0.5, 1.0, speed=2)
    with pytest.raises(PlanError, match=r"schedule\[0\].options: clock has no 'speed'"):
        plan_of(time_limit=2.0, schedule=[wrong])


def test_a_server_that_was_removed_for_good_is_not_waited_for():
    cut, removed = step("partition", "one", 0.5, 1.2), step("membership", "one", 0.6, 1.0, number=2, for_good=1)
    recording = Simulation(plan_of(time_limit=3.0, schedule=[cut, removed])).run()
    results = judged(recording)
    assert broken(results) == []
    (liveness,) = [verdict for verdict in results.verdicts if verdict.checker == "liveness"]
    assert set(liveness.details["applied"]) == {"n2", "n3", "n4", "n5"}
