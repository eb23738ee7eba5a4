"""The shrinker: the operations that a verdict names, and its bold steps."""

from __future__ import annotations

from sim_support import plan_of, step

from raftbed import bugs
from raftbed.model import Verdict
from raftbed.plan import make_plan
from raftbed.sim.child import Simulator
from raftbed.sim.hunting import settings_of
from raftbed.sim.replay import Replay, Violation
from raftbed.sim.shrink import Candidate, Shrinker, last_faults, script_of, until, witness_of
from raftbed.sim.simulation import Call, Simulation
from raftbed.store import Results
from raftbed.workloads.base import Request


def named(op):
    return {"process": op.process, "f": op.f, "call": op.time}


def test_operations_that_contradict_each_other_are_found_in_the_script():
    recording = Simulation(plan_of("smoke-test", time_limit=2.0, keys=2)).run()
    script = script_of(recording)
    begun = [op for op in recording.ops if op.type == "invoke" and op.key == "r0"]
    write = next(op for op in begun if op.f == "write")
    last = begun[-1]  # one of the final reads
    witness = {"key": "r0", "operations": [named(last), named(write)]}
    results = Results(
        "a run", "invalid", (Verdict("linearizable", "invalid", "They contradict.", {"witness": witness}),)
    )
    first, second = witness_of(recording, results, script)
    assert (first.request.f, first.request.value) == ("write", write.value)
    assert (second.request.f, second.at) == ("read", None)


def test_a_verdict_that_names_no_operations_says_nothing():
    recording = Simulation(plan_of("smoke-test", time_limit=1.0)).run()
    results = Results(
        "a run", "invalid", (Verdict("liveness", "invalid", "No leader."), Verdict("linearizable", "valid", "Fine."))
    )
    assert witness_of(recording, results, script_of(recording)) == []


def test_a_shorter_run_is_the_beginning_of_the_longer_one():
    schedule = [step("kill", "leader", 0.5, 1.5), step("pause", "one", 2.5, 2.8, number=2)]
    whole = Candidate(plan_of(time_limit=3.0, schedule=schedule), None)
    short = until(whole, 1.2)
    assert [(kept.id, kept.until) for kept in short.plan.schedule] == [("f01", 1.2)]
    longer, shorter = (Simulation(one.plan).run() for one in (whole, short))
    begin = next(event.time for event in shorter.events if event.message == "clients")
    end = begin + 1.2e9
    for node, trace in longer.traces.items():
        then = [record for record in trace if record[0] < end]
        assert then
        assert [record for record in shorter.traces[node] if record[0] < end] == then


def test_the_last_faults_are_moved_to_the_beginning_with_the_operations_around_them():
    schedule = [step("kill", "one", 0.5, 1.0), step("pause", "all", 2.4, 2.6, number=2)]
    read = Request("read", "r0", None)
    script = (Call(0.5, 0, read), Call(2.5, 1, read), Call(None, 0, read))
    moved = last_faults(Candidate(plan_of(time_limit=3.0, schedule=schedule), script), 1)
    assert [(kept.id, kept.at, kept.until) for kept in moved.plan.schedule] == [("f02", 0.4, 0.6)]
    assert moved.plan.time_limit == 1.0
    assert moved.script == (Call(0.5, 1, read), Call(None, 0, read))


def test_a_violation_that_needs_luck_is_made_small():
    """One seed in nine shows it; taking out operations one by one under a few seeds left hundreds of them."""
    bug = bugs.load("commit-past-verified")
    plan = make_plan(settings_of(bug, seed=8), seed=8)
    with Simulator(bug.name) as simulator:
        shrinker = Shrinker(Replay(plan, (Violation("raft-invariants", "", ""),), ""), simulator, seconds=120.0)
        assert shrinker.shrink() is not None
    assert shrinker.size.faults <= 5
    assert shrinker.size.operations <= 12
