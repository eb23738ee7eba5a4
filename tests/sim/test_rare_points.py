"""Rare points: each is taken, changes nothing that a correct Raft promises, and is over with the final heal."""

from __future__ import annotations

import pytest
from sim_support import broken, judged, plan_of, step

from raftbed import swarm
from raftbed.model import VALID
from raftbed.nodes.raft.core import Core
from raftbed.sim.rare_points import RARE, RareCore, RarePoints
from raftbed.sim.simulation import Simulation

LAGGING = [step("power", "followers-minority", 0.4, 1.4)]  # who comes back is sent entries, and a snapshot
OFTEN = {name: min(1.0, 40 * chance) for name, chance in swarm.POINTS.items()}


class Named:
    name, boot = "n1", 1


@pytest.mark.parametrize("point", swarm.POINTS)
def test_each_point_is_taken_and_harmless(point):
    plan = plan_of(time_limit=2.5, schedule=LAGGING, rate=110.0, rare_points={point: OFTEN[point]})
    recording = Simulation(plan).run()
    assert recording.counts[f"{RARE}{point}"] > 0
    results = judged(recording)
    assert results.validity == VALID, broken(results)


def test_all_of_them_together_are_harmless():
    recording = Simulation(plan_of(time_limit=4.0, schedule=LAGGING, rare_points=dict(swarm.POINTS))).run()
    assert sum(recording.counts[f"{RARE}{point}"] > 0 for point in swarm.POINTS) > 5
    assert not broken(judged(recording))


def test_a_run_without_them_has_the_core_of_a_host():
    assert RarePoints({}, 1).core_of(Named()) is Core
    assert RarePoints({"busy": 1.0}, 1).core_of(Named()) is not Core


def test_every_point_is_a_method_that_the_core_has():
    assert {name for name in vars(RareCore) if not name.startswith("_")} <= set(dir(Core))


def test_none_is_taken_once_they_are_over():
    points = RarePoints({"refuse-write": 1.0}, 1)
    core = RareCore.__new__(RareCore)
    core._points, core._draw = points, lambda: 0.5
    assert core._takes("refuse-write")
    points.over = True
    assert not core._takes("refuse-write")
    assert points.counts() == {f"{RARE}refuse-write": 1}


def test_nodes_have_their_own_options():
    own = {"n2": {"snapshot_policy": 5}, "n3": {"snapshot_policy": None}}
    simulation = Simulation(plan_of("smoke-test", nodes=3, time_limit=2.0, own_options=own))
    assert [simulation.nodes[name].config.snapshot_policy is None for name in ("n1", "n2", "n3")] == [
        False,
        False,
        True,
    ]
    recording = simulation.run()
    taken = {name: sum(event == "snapshot" for _, event, _ in recording.traces[name]) for name in own}
    assert taken["n2"] > taken["n3"] == 0
    assert judged(recording).validity == VALID
