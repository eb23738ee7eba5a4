"""What is unusual about simulated nodes: drawn by seed, legal, kept in the plan, and never where someone chose."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from raftbed import suite, swarm
from raftbed.errors import PlanError, UsageError
from raftbed.nodes.raft import Config
from raftbed.plan import PlanSettings, make_plan, override, read_settings, repeat_command

NODES = ("n1", "n2", "n3")
SEEDS = range(300)
CHAOS = PlanSettings(test="chaos-test")


def test_all_that_is_drawn_is_legal():
    for seed in SEEDS:
        plan = make_plan(CHAOS, seed=seed)
        for node in plan.nodes:
            Config.from_mapping("test", plan.options_of(node))


def test_seeds_draw_every_option_and_every_point_and_some_draw_nothing():
    drawn = [swarm.draw_options(NODES, seed, fixed={}) for seed in SEEDS]
    named = {name for own in drawn for options in own.values() for name in options}
    assert named == {name for choices in swarm.OPTIONS.values() for choice in choices for name in choice}
    armed = [swarm.arm(seed) for seed in SEEDS]
    assert {point for points in armed for point in points} == set(swarm.POINTS)
    assert all(0 < chance <= 1 for points in armed for chance in points.values())
    assert 0.2 < sum(not own for own in drawn) / len(SEEDS) < 0.6
    assert 0.2 < sum(not points for points in armed) / len(SEEDS) < 0.6


def test_nodes_differ_in_some_seeds_and_are_alike_in_others():
    drawn = [own for seed in SEEDS if (own := swarm.draw_options(NODES, seed, fixed={}))]
    alike = [len(own) == 3 and own["n1"] == own["n2"] == own["n3"] for own in drawn]
    assert any(alike)
    assert not all(alike)


def test_what_someone_chose_stays():
    settings = override(CHAOS, node_options={"pre_vote": True, "snapshot_policy": 33})
    for seed in SEEDS:
        plan = make_plan(settings, seed=seed)
        assert all((o := plan.options_of(n))["pre_vote"] and o["snapshot_policy"] == 33 for n in plan.nodes)


def test_a_plan_repeats_what_was_drawn(tmp_path):
    plan = next(p for seed in SEEDS if (p := make_plan(CHAOS, seed=seed)).own_options and p.rare_points)
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.json.encode(plan))
    assert make_plan(read_settings(path), seed=0) == plan
    assert repeat_command(plan) is not None, "the seed says it"
    assert repeat_command(replace(plan, rare_points={})) is None


@pytest.mark.parametrize("test", sorted(set(suite.TESTS) - {"chaos-test"}))
def test_other_tests_have_nodes_as_usual(test):
    for seed in range(20):
        plan = make_plan(PlanSettings(test=test, hosts="simulated"), seed=seed)
        assert (plan.own_options, plan.rare_points) == ({}, {})


def test_a_schedule_by_hand_has_nodes_as_usual():
    plans = [make_plan(override(CHAOS, schedule=[]), seed=seed) for seed in SEEDS]
    assert not any(plan.own_options or plan.rare_points for plan in plans)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"own_options": {"n9": {}}}, "own_options: there is no node 'n9'"),
        ({"own_options": {"n1": {"trailing_logs": -1}}}, "own_options of n1: trailing_logs"),
        ({"rare_points": {"none-such": 0.5}}, "There is no rare point 'none-such'"),
        ({"rare_points": {"busy": 1.5}}, "rare_points: busy: 1.5 is out of bounds"),
        ({"rare_points": {"busy": 0.5}, "test": "smoke-test", "hosts": "local"}, "only the simulator has them"),
    ],
)
def test_what_cannot_be_is_refused(changes, said):
    with pytest.raises((PlanError, UsageError), match=said):
        make_plan(override(CHAOS, **changes), seed=1)
