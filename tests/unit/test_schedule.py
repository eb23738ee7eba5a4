"""A seed is one schedule, everywhere and for ever; what is written by hand is checked."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftbed.errors import PlanError
from raftbed.faults.shapes import aims_at_leader
from raftbed.model import FaultStep
from raftbed.schedule import SHAPES, make_schedule, validate_schedule

NODES = ("n1", "n2", "n3", "n4", "n5")


def schedule(faults=("partition",), *, time_limit=20.0, seed=1, nodes=NODES):
    return make_schedule(faults, nodes=nodes, time_limit=time_limit, operation_timeout=2.0, seed=seed)


@given(
    faults=st.sampled_from([("partition",), ("kill",), ("partition", "kill")]),
    time_limit=st.floats(1.0, 120.0),
    count=st.integers(2, 9),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=200, deadline=None)
def test_every_schedule_can_be_executed(faults, time_limit, count, seed):
    nodes = tuple(f"n{number}" for number in range(1, count + 1))
    steps = schedule(faults, time_limit=time_limit, seed=seed, nodes=nodes)
    assert steps
    assert validate_schedule(steps, nodes=nodes, time_limit=time_limit) == steps
    assert {step.kind for step in steps} <= set(faults)
    assert [step.id for step in steps] == [f"f{number:02d}" for number in range(1, len(steps) + 1)]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_long_runs_begin_and_end_calmly(seed):
    steps = schedule(seed=seed)
    assert min(step.at for step in steps) >= 1.0
    assert max(step.until for step in steps) <= 20.0 - 2.0


@given(faults=st.sampled_from([("partition",), ("kill",), ("partition", "kill")]), seed=st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_between_scenes_the_cluster_may_recover(faults, seed):
    steps = schedule(faults, seed=seed, time_limit=60.0)
    in_force_until = steps[0].until
    for step in steps[1:]:
        assert step.at < in_force_until or step.at >= in_force_until + 1.5
        in_force_until = max(in_force_until, step.until)


@pytest.mark.parametrize("operation_timeout", [0.05, 0.5, 2.0, 30.0])
def test_faults_last_long_enough_and_fit_whatever_the_time_out(operation_timeout):
    for seed in range(20):
        steps = make_schedule(
            ["partition"], nodes=NODES, time_limit=30.0, operation_timeout=operation_timeout, seed=seed
        )
        assert len(steps) >= 4
        assert min(step.until - step.at for step in steps) >= 0.4
        for step in steps:
            if "than the clients' time-out" in step.why:
                assert ("longer" in step.why) == (step.until - step.at > operation_timeout)


@pytest.mark.parametrize(("time_limit", "least", "most"), [(5.0, 1, 2), (20.0, 4, 9), (60.0, 15, 28)])
@pytest.mark.parametrize("faults", [("partition",), ("kill",), ("partition", "kill")])
def test_a_run_is_neither_idle_nor_crowded(faults, time_limit, least, most):
    counts = [len(schedule(faults, time_limit=time_limit, seed=seed)) for seed in range(50)]
    assert least <= min(counts)
    assert max(counts) <= most


def test_a_minute_holds_what_breaks_systems():
    for seed in range(20):
        steps = schedule(time_limit=60.0, seed=seed)
        assert {"leader-alone", "leader-minority", "leader-deaf"} <= {step.shape for step in steps}
        overlapping = [a for a, b in pairwise(steps) if b.at < a.until]
        assert overlapping, "no partition follows another with no heal between"
        lasting = [step.until - step.at for step in steps]
        assert min(lasting) < 2.0 < max(lasting), "shorter and longer than the clients' time-out"


def test_crashes_hit_leaders_and_whole_clusters():
    shapes = {step.shape for step in schedule(("kill",), time_limit=60.0)}
    assert {"leader", "all", "followers-majority"} <= shapes


def test_kills_happen_within_partitions_when_both_are_asked_for():
    steps = schedule(("partition", "kill"), time_limit=120.0)
    assert any(
        cut.kind == "partition" and kill.kind == "kill" and cut.at < kill.at < cut.until
        for cut in steps
        for kill in steps
    )


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_no_planned_fault_strikes_nobody(count):
    nodes = NODES[:count]
    for seed in range(30):
        faults = ("partition", "kill")
        steps = make_schedule(faults, nodes=nodes, time_limit=30.0, operation_timeout=2.0, seed=seed)
        assert validate_schedule(steps, nodes=nodes, time_limit=30.0) == steps


def test_a_written_fault_that_strikes_nobody_is_refused():
    step = FaultStep("f01", "partition", "majorities-ring", 1.0, 2.0, ("n1", "n2"))
    with pytest.raises(PlanError, match="strikes nobody among 2 nodes"):
        validate_schedule([step], nodes=("n1", "n2"), time_limit=5.0)


def test_no_faults_and_single_nodes_have_an_empty_schedule():
    assert schedule(()) == ()
    assert schedule(nodes=("n1",)) == ()


def test_the_schedule_of_a_seed_does_not_depend_on_the_process():
    code = (
        "from raftbed.schedule import make_schedule;"
        f"print(make_schedule(('partition','kill'), nodes={NODES}, time_limit=40, operation_timeout=2.0, seed=9))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": str(number)}, capture_output=True, check=True
        ).stdout
        for number in (1, 2)
    }
    assert len(runs) == 1


STEP = FaultStep("f01", "partition", "halves", 1.0, 3.0, NODES)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "fire"}, r"schedule\[0\]\.kind: there is no fault 'fire'\. There are: partition, kill"),
        ({"shape": "thirds"}, r"schedule\[0\]\.shape: partition has no shape 'thirds'\. It has: one, halves"),
        ({"at": 3.0}, r"schedule\[0\]: at 3 until 3 does not fit"),
        ({"until": 21.0}, "until <= 20"),
        ({"at": float("nan")}, "does not fit"),
        ({"order": ("n1", "n2")}, "must hold every node exactly once. The nodes are: n1 n2 n3 n4 n5"),
        ({"id": "../../x"}, "not of letters and digits"),
        ({"id": ""}, "is empty"),
    ],
)
def test_a_step_that_cannot_be_executed_is_named(change, said):
    with pytest.raises(PlanError, match=said):
        validate_schedule([replace(STEP, **change)], nodes=NODES, time_limit=20.0)


def test_two_steps_of_one_name_are_refused():
    with pytest.raises(PlanError, match=r"schedule\[1\]\.id: 'f01'"):
        validate_schedule([STEP, STEP], nodes=NODES, time_limit=20.0)


def test_steps_written_out_of_order_are_sorted():
    later = replace(STEP, id="f02", at=5.0, until=6.0)
    assert validate_schedule([later, STEP], nodes=NODES, time_limit=20.0) == (STEP, later)


def test_every_shape_can_be_drawn_or_written():
    assert set(SHAPES) == {"partition", "kill"}
    assert aims_at_leader("kill", "followers-majority")
    assert not aims_at_leader("kill", "one")
