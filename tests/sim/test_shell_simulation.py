"""Whole nodes in virtual time: every fault takes, heals, and leaves a correct node correct; same seed, same run."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shell_support import run, whole
from sim_support import broken, judged, plan_of, step

from raftbed import suite
from raftbed.cli import main
from raftbed.errors import PlanError
from raftbed.model import VALID
from raftbed.sim.shell.clients import Clients
from raftbed.sim.shell.loop import Deadlock
from raftbed.sim.shell.simulation import ShellSimulation

PROGRAM = """
import sys
from raftbed.plan import PlanSettings, make_plan
from raftbed.sim.child import run
for seed in map(int, sys.argv[2:]):
    plan = make_plan(PlanSettings(test=sys.argv[1], hosts="simulated-real-nodes"), seed=seed)
    print(seed, run(plan).trace_hash())
"""


def hashes(test: str, seeds: range, hash_seed: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, test, *map(str, seeds)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()


def command(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_three_nodes_elect_a_leader_and_commit():
    recording = run("smoke-test", nodes=3, time_limit=1.0)
    counts = recording.counts
    assert (counts["boots"], counts["leaderships"]) == (3, 1)
    assert counts["ok"] > 50
    assert judged(recording).validity == VALID


@pytest.mark.parametrize("seed", range(20))
def test_a_correct_node_survives_chaos(seed):
    assert not broken(judged(run(seed=seed, time_limit=6.0)))


@pytest.mark.parametrize("test", ["partition-test", "crash-test"])
def test_the_ordinary_tests_run_with_whole_nodes(test):
    results = judged(run(test))
    assert results.validity == VALID, broken(results)


@pytest.mark.parametrize("kind", sorted({**suite.SIMULATED_FAULTS, **suite.SHELL_FAULTS}.keys() - {"moment"}))
def test_each_kind_of_fault_is_injected_proved_and_healed(kind):
    recording = run(time_limit=2.5, schedule=[step(kind, "leader", 0.5, 1.5)])
    assert [event.state for event in recording.faults] == ["injected", "proved", "healed"]
    results = judged(recording)
    assert results.validity == VALID, broken(results)


@pytest.mark.parametrize(
    "kind", ["loss", "duplicate", "delay", "clog", "reset", "hang-up", "hasty-clients", "slow-clients"]
)
def test_faults_of_connections_meet_traffic(kind):
    recording = run(time_limit=3.0, schedule=[step(kind, "leader", 0.5, 2.5)])
    assert recording.faults[-1].detail["met"] > 0


def test_a_terminated_node_comes_to_its_end_and_back():
    recording = run(time_limit=3.0, schedule=[step("terminate", "all", 0.5, 1.5)])
    assert recording.counts["boots"] == 10
    assert all(sum("stops" in line for line in lines) == 2 for lines in recording.logs.values())
    assert judged(recording).validity == VALID


def test_a_node_whose_disk_is_full_stops_and_is_no_finding():
    recording = run(time_limit=3.0, schedule=[step("full-disk", "leader", 0.5, 1.5)])
    said = [line for lines in recording.logs.values() for line in lines]
    assert any("No space left" in line for line in said)
    assert judged(recording).validity == VALID
    assert recording.counts["boots"] == 6


def test_a_node_that_fails_without_a_fault_is_a_finding():
    simulation = ShellSimulation(whole("smoke-test", time_limit=2.0))
    disk = simulation.nodes["n2"].disk
    simulation.timeline.at(10**9, lambda: setattr(disk, "broken", True))
    simulation.timeline.at(10**9 + 5 * 10**8, lambda: setattr(disk, "broken", False))
    simulation._shells["n2"].ends_snapshot_work = lambda failed: None  # type: ignore[method-assign]
    results = judged(simulation.run())
    assert any(line.startswith("node-health: n2") for line in broken(results))


def test_a_power_failure_takes_what_was_not_synced():
    slow = step("slow-disk", "all", 0.5, 4.8, number=9)  # so that the power fails while they write
    schedule = [slow, *(step("power", "all", at, at + 0.4, number=int(at)) for at in (1, 2, 3, 4))]
    recording = run(time_limit=5.5, schedule=schedule)
    lost = [event.detail.get("lost_bytes", {}) for event in recording.faults if event.state == "injected"]
    assert any(files for nodes in lost for files in nodes.values())
    assert not broken(judged(recording))


def test_runs_repeat_in_other_processes_under_other_hash_seeds():
    first, second = hashes("chaos-test", range(3), "1"), hashes("chaos-test", range(3), "4711")
    assert len(set(first)) == 3
    assert first == second


@pytest.mark.soak
def test_fifty_seeds_repeat():
    assert hashes("chaos-test", range(100, 150), "1") == hashes("chaos-test", range(100, 150), "4711")


def test_the_command_leaves_an_ordinary_run_directory(tmp_path, capsys):
    options = ["--seed", "3", "--time-limit", "2", "--nodes", "3", "--store", str(tmp_path)]
    assert command(["simulate", "crash-test", "--real-nodes", "--json", *options]) == 0
    said = json.loads(capsys.readouterr().out)
    kept = {name: json.loads(Path(said["run"], f"{name}.json").read_text()) for name in ("plan", "manifest")}
    assert kept["plan"]["hosts"] == "simulated-real-nodes"
    assert "--real-nodes" in kept["manifest"]["command"]
    assert command(["check", said["run"]]) == 0
    capsys.readouterr()
    assert command(["replay", f"{said['run']}/plan.json", "--store", str(tmp_path), "--json"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert (Path(replayed["run"]) / "messages.jsonl").stat().st_size
    assert "Messages between the nodes, step by step" in Path(replayed["report"]).read_text()


def test_a_campaign_runs_whole_nodes(tmp_path, capsys):
    options = ["--seeds", "2", "--time-limit", "1", "--jobs", "1", "--store", str(tmp_path), "--json"]
    assert command(["campaign", "smoke-test", "--real-nodes", *options]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["boots"] == 10


def test_a_run_without_an_end_says_who_waits(monkeypatch):
    async def never(*_: Any) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(Clients, "_attempt", never)
    with pytest.raises(Deadlock, match=r"clients wait in .*never"):
        run("smoke-test", nodes=1, time_limit=1.0, keys=1, recovery_timeout=1.0)


def test_chaos_has_the_faults_of_the_shell_with_whole_nodes_only():
    assert set(whole().faults) - set(plan_of().faults) == set(suite.SHELL_FAULTS)
    with pytest.raises(PlanError, match="only real nodes in virtual time have 'reset'"):
        plan_of("smoke-test", faults=["reset"])
