"""Campaigns keep what they find, go on where they stopped, and a violation repeats and becomes small."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim_support import plan_of

from raftbed import campaigning
from raftbed.cli import main
from raftbed.model import Verdict
from raftbed.plan import PlanSettings
from raftbed.sim.campaign import Campaign, SeedResult, Summary, run_seeds
from raftbed.sim.replay import Violation, cause_of
from raftbed.sim.shrink import smallest
from raftbed.sim.simulation import Simulation

BUG = "stale-leader-read"


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run a command in an empty directory: its exit code, its JSON output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code, json.loads(captured.out) if captured.out.startswith("{") else None, captured.err

    return call


def test_a_violation_is_kept_repeated_and_made_small(cli):
    code, found, _ = cli("campaign", "partition-test", "--bug", BUG, "--rate", 40, "--seeds", 8, "--jobs", 1, "--json")
    assert code == 1
    assert found["violations"]
    file = found["violations"][0]["file"]
    code, again, _ = cli("replay", file, "--json")
    assert code == 1
    assert again["same_trace"]
    assert again["same_violation"]
    code, small, _ = cli("shrink", file, "--json", "--seconds", 60)
    assert code == 1
    assert small["size"]["faults"] <= 2
    assert small["size"]["operations"] <= 12
    code, again, _ = cli("replay", small["file"], "--json")
    assert code == 1
    assert again["same_trace"]


def campaign(tmp_path, count):
    settings = PlanSettings(test="smoke-test", hosts="simulated", time_limit=1.0)
    return Campaign(settings, first=0, count=count, jobs=1, keep_going=False, store=tmp_path)


def test_a_campaign_goes_on_where_it_stopped(tmp_path):
    first = campaign(tmp_path, 3).run(resume=False, progress=lambda *_: None)
    assert sorted(first.results) == [0, 1, 2]
    began = []
    more = campaign(tmp_path, 5)
    summary = more.run(resume=True, progress=lambda so_far, _: began.append(len(so_far.results)))
    assert sorted(summary.results) == [0, 1, 2, 3, 4]
    assert summary.validity == "valid"
    lines = (more.directory / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1, 2, 3, 4]


def test_a_stopped_campaign_begins_nothing_and_is_no_pass(tmp_path):
    stopped = campaign(tmp_path, 3)
    stopped.stop()
    summary = stopped.run(resume=False, progress=lambda *_: None)
    assert summary.interrupted
    assert summary.validity == "unknown"


def test_a_defect_of_the_simulator_is_unknown_and_ends_no_campaign(tmp_path, monkeypatch):
    monkeypatch.setattr(Simulation, "run", lambda self: 1 // 0)
    settings = PlanSettings(test="smoke-test", hosts="simulated")
    (found,) = run_seeds(settings, [1], tmp_path)
    assert found.validity == "unknown"
    assert found.reason == "simulator: it broke: ZeroDivisionError: integer division or modulo by zero"


def result(seed, cause=None):
    violations = (Violation("linearizable", cause, cause),) if cause else ()
    return SeedResult(
        seed, "invalid" if cause else "valid", violations, duration=3_600 * 10**9, file=f"seed-{seed}.json"
    )


def test_the_table_groups_violations_by_cause_the_most_frequent_first():
    results = {1: result(1, "rare"), 2: result(2, "frequent"), 3: result(3, "frequent"), 4: result(4)}
    said = list(campaigning.lines(Summary(4, results)))
    assert said[0] == "INVALID  4 of 4 seeds: 1 valid, 3 invalid, 0 unknown"
    assert "4.00 hours" in said[1]
    causes = [line for line in said if "✗" in line]
    assert causes == ["  ✗ 2 × frequent", "  ✗ 1 × rare"]
    assert any("seeds 2, 3; repeat one: raftbed replay seed-2.json" in line for line in said)


def test_violations_that_differ_in_numbers_and_names_only_have_one_cause():
    one = Verdict("liveness", "invalid", "n1, n2 did not answer for 15.0 s.")
    other = Verdict("liveness", "invalid", "n4 did not answer for 9.5 s.")
    another = Verdict("liveness", "invalid", "in 15.0 s nobody led, and the term stayed at 7.")
    assert cause_of(one) == cause_of(other)
    assert cause_of(one) != cause_of(another)


@given(st.integers(1, 40), st.data())
def test_delta_debugging_finds_the_few_that_matter(count, data):
    needed = data.draw(st.sets(st.integers(0, count - 1), max_size=4))
    assert set(smallest(range(count), lambda part: needed <= set(part), lambda: True)) == needed


def test_delta_debugging_ends_when_time_is_up():
    left = iter([True] * 3)
    found = smallest(range(100), lambda part: random.random() < 0, lambda: next(left, False))
    assert list(found) == list(range(100))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "chaos-test"), "chaos-test runs in virtual time only. Use: raftbed simulate chaos-test"),
        (("run", "smoke-test", "--faults", "power"), "faults: only the simulator has 'power'."),
        (("simulate", "no-such-test"), "There is no test 'no-such-test'."),
        (("campaign", "chaos-test", "--bug", "none-such"), "There is no bug 'none-such'."),
        (("replay", "gone.json"), "gone.json: cannot be read: No such file or directory."),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(cli, arguments, said):
    code, _, err = cli(*arguments)
    assert code == 254
    assert said in " ".join(err.split())


def test_a_file_that_is_no_schedule_is_refused(cli, tmp_path):
    (tmp_path / "odd.json").write_text('{"schema": "raftbed.replay/1", "plan": 3}')
    code, _, err = cli("shrink", "odd.json")
    assert code == 254
    assert "odd.json: is no schedule file" in err
    (tmp_path / "odd.json").write_bytes('{"schema": "café"}'.encode("latin-1"))
    assert "odd.json: is no schedule file: it holds the byte 0xe9" in cli("replay", "odd.json")[2]


def test_the_plan_of_a_simulated_run_is_repeated_by_its_command(cli):
    code, first, _ = cli("simulate", "chaos-test", "--seed", 3, "--time-limit", 2, "--json")
    assert code in (0, 2)
    _, again, _ = cli("replay", f"{first['run']}/plan.json", "--json")
    assert first["results"]["verdicts"] == again["results"]["verdicts"]
    manifest = json.loads((Path(first["run"]) / "manifest.json").read_text())
    assert manifest["machine"]["simulated"] is True
    assert manifest["machine"]["trace_hash"] == first["trace_hash"]
    assert manifest["command"].startswith("raftbed simulate chaos-test --seed 3")
    assert plan_of("chaos-test", seed=3).checks[-3:] == ("liveness", "message-storm", "synced-before-sent")
