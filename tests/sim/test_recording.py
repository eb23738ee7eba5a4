"""What a simulated run leaves is judged from memory exactly as it would be from files."""

from __future__ import annotations

import pytest
from sim_support import plan_of

from raftbed.analysis import raft_invariants
from raftbed.sim.recording import RecordedRun
from raftbed.sim.simulation import Simulation


class FromFiles(RecordedRun):
    """The same run, whose traces are not at hand."""

    def trace_records(self, node):
        return None


@pytest.mark.parametrize("seed", [3, 4])
def test_traces_at_hand_are_judged_as_their_files_are(seed, tmp_path):
    recording = Simulation(plan_of(seed=seed, time_limit=3.0)).run()
    verdict = raft_invariants.check(RecordedRun(recording, tmp_path))
    assert verdict.validity == "valid"
    assert not list(tmp_path.rglob("trace.jsonl"))
    assert verdict == raft_invariants.check(FromFiles(recording, tmp_path))


def test_what_traces_at_hand_contradict_is_shown_with_its_lines(tmp_path):
    recording = Simulation(plan_of("smoke-test", seed=3, time_limit=2.0)).run()
    trace = recording.traces["n2"]
    place, (time, event, fields) = next(
        (place, record) for place, record in enumerate(trace) if record[1] == "apply" and record[2]["last"] > 3
    )
    trace[place] = (time, event, {**fields, "hash": "0123456789abcdef"})
    verdict = raft_invariants.check(RecordedRun(recording, tmp_path))
    assert verdict.validity == "invalid"
    (shown,) = [r for r in verdict.details["violations"][0]["records"] if "0123456789abcdef" in r["text"]]
    assert shown["line"] == place + 1
    assert verdict == raft_invariants.check(FromFiles(recording, tmp_path))
