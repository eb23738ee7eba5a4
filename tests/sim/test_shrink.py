"""What the shrinker tries first: the operations that a verdict names."""

from __future__ import annotations

from sim_support import plan_of

from raftbed.model import Verdict
from raftbed.sim.shrink import script_of, witness_of
from raftbed.sim.simulation import Simulation
from raftbed.store import Results


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
