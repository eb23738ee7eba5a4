"""The `bugs` command in simulation: a bug's scenario, seed after seed, until a run ends invalid."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raftbed import bugs
from raftbed.errors import UsageError
from raftbed.plan import make_plan
from raftbed.sim.campaign import SeedResult
from raftbed.sim.hunting import Hunt, HuntRequest, hunt_all, rows, settings_of
from raftbed.sim.replay import Violation, read_replay


def invalid(seed, *checkers, invariants=(), cpu=2.0):
    violations = tuple(Violation(checker, f"{checker}: a cause", f"{checker} says so.") for checker in checkers)
    return SeedResult(seed, "invalid", violations, invariants, counts={"ok": 100}, cpu=cpu)


def in_a_process(*arguments):
    command = [sys.executable, "-m", "raftbed.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def valid(seed):
    return SeedResult(seed, "valid", counts={"ok": 10}, cpu=1.0)


def test_the_first_run_that_ends_invalid_counts_and_clients_may_see_it_later():
    hunt = Hunt("a-bug", "chaos-test")
    hunt.take(valid(0))
    hunt.take(invalid(1, "raft-invariants", invariants=("votes-counted",)))
    hunt.take(valid(2))
    hunt.take(invalid(3, "linearizable", "raft-invariants"))
    assert (hunt.found, hunt.seed, hunt.seeds, hunt.seconds, hunt.operations) == (True, 1, 2, 3.0, 110)
    assert (hunt.by, hunt.invariants) == (("raft-invariants",), ("votes-counted",))
    assert (hunt.by_clients, hunt.clients_seeds, hunt.clients_seconds) == (("linearizable",), 4, 6.0)
    assert rows([hunt])[1] == ("a-bug", "yes", "2", "3.0", "110", "linearizable (6.0 s)", "votes-counted")


def test_what_only_nodes_record_is_not_seen_by_clients():
    hunt = Hunt("a-bug", "chaos-test")
    hunt.take(invalid(0, "node-health", "synced-before-sent", "raft-invariants", invariants=("monotonic",)))
    assert (hunt.found, hunt.by_clients) == (True, ())
    assert rows([hunt])[1][-2:] == ("no", "node-health, synced-before-sent, monotonic")


def test_unknown_is_not_found():
    hunt = Hunt("a-bug", "chaos-test")
    hunt.take(SeedResult(0, "unknown", reason="it broke"))
    assert (hunt.found, hunt.broken) == (False, ["seed 0: it broke"])
    assert rows([hunt])[1][1] == "no"


@pytest.mark.parametrize("name", bugs.names())
def test_a_scenario_is_a_plan_for_the_simulator(name):
    bug = bugs.load(name)
    plan = make_plan(settings_of(bug, seed=1), seed=1)
    assert (plan.hosts, plan.bug) == ("simulated", name)
    assert bug.node_options.items() <= plan.node_options.items()


def test_a_hunt_ends_when_the_bug_is_found(tmp_path):
    told, ended = [], []
    (hunt,) = hunt_all(
        HuntRequest(("leader-acks-before-own-log",), tmp_path, seeds=3, time_limit=2.0),
        lambda so_far: told.append(so_far.seeds),
        ended.append,
    )
    assert ended == [hunt]
    assert hunt.found and hunt.by and hunt.file
    assert (tmp_path / "bugs" / hunt.bug / f"seed-{hunt.seed}.json").exists()
    assert told[-1] == hunt.clients_seeds <= 3


def test_what_is_found_is_made_small_when_asked_for(tmp_path):
    request = HuntRequest(("leader-acks-before-own-log",), tmp_path, seeds=3, time_limit=2.0, shrink=20.0)
    (hunt,) = hunt_all(request, lambda hunt: None, lambda hunt: None)
    small = read_replay(Path(hunt.shrunk_file))
    assert (len(small.plan.schedule), len(small.plan.nodes)) == (hunt.shrunk.faults, hunt.shrunk.nodes)
    assert hunt.shrunk.operations <= 12
    head, row = rows([hunt])
    assert (head[-1], row[-1]) == (
        "shrunk to",
        f"{hunt.shrunk.faults} faults, {hunt.shrunk.operations} operations, 1 nodes",
    )


def test_no_such_bug(tmp_path):
    with pytest.raises(UsageError, match="There is no bug 'nonsense'"):
        hunt_all(HuntRequest(("nonsense",), tmp_path), lambda hunt: None, lambda hunt: None)


def test_the_command_says_by_its_exit_code_whether_all_were_found(tmp_path):
    command = ("bugs", "--seeds", "1", "--jobs", "1", "--store", str(tmp_path), "--time-limit", "2", "--json")
    found = in_a_process(*command, "leader-acks-before-own-log")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["found"] == 1
    missed = in_a_process(*command, "snapshot-without-sessions", "--budget", "1")  # it takes more than 2 s
    assert missed.returncode == 1, missed.stderr
    assert json.loads(missed.stdout)["bugs"][0]["found"] is False


def test_options_of_simulation_are_refused_on_real_hosts(tmp_path):
    ended = in_a_process("bugs", "--live", "--budget", "5", "--store", str(tmp_path))
    assert ended.returncode == 254
    assert "--budget is for hunts in simulation" in ended.stderr
