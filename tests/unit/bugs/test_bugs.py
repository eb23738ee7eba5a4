"""Planted bugs: each can be planted in the code as it is today, and shows within some random stories.

Planting replaces methods of classes, so each is planted in a process of its own (tests/support/tests_bugs.py).
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from raftbed import bugs, suite
from raftbed.nodes.raft import Config

ROOT = Path(__file__).resolve().parents[3]
ABOVE_RAFT = {"no-retry-dedup", "deposed-says-failed"}  # in the state machine and in HTTP, which stories have not
ONLY_SIMULATED = {  # stories have no snapshots, no changes of membership and no leases
    "config-at-apply", "joint-one-majority", "lease-ignores-drift", "promoted-not-counted", "removed-server-disrupts",
    "snapshot-drops-newer-suffix", "snapshot-without-sessions",
}  # fmt: skip
FOUND_BY = {
    "ack-before-fsync": "replicas-counted",
    "commit-old-term-by-count": "own-term-commit",
    "commit-past-verified": "state-machine-safety",
    "duplicate-vote-counted": "votes-counted",
    "fixed-election-timeout": "no-leader",
    "leader-acks-before-own-log": "replicas-counted",
    "match-not-max": "monotonic",
    "match-starts-at-last": "replicas-counted",
    "no-log-freshness-check": "leader-completeness",
    "old-vote-counted": "votes-counted",
    "quorum-off-by-one": "votes-counted",
    "read-before-applied": "stale-read",
    "read-before-own-term-commit": "stale-read",
    "read-quorum-too-small": "stale-read",
    "restart-applies-wrong": "state-machine-safety",
    "stale-leader-read": "stale-read",
    "torn-tail-not-recovered": "hard-state",
    "truncate-matching-suffix": "replicas-counted",
    "vote-cleared-on-step-down": "hard-state",
    "vote-not-persisted": "hard-state",
    "vote-without-fsync": "hard-state",
}

FOUND_IN_SIMULATION = {  # a seed of its scenario, and by what
    "config-at-apply": (11, "liveness"),
    "fixed-election-timeout": (1, "liveness"),
    "joint-one-majority": (0, "replicas-counted"),
    "promoted-not-counted": (0, "replicas-counted"),
}


def in_a_process(*command: str) -> str:
    """Standard output of Python with these arguments, which must succeed."""
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def hunt(name: str, seeds: int) -> dict:
    return json.loads(in_a_process(str(ROOT / "tests" / "support" / "tests_bugs.py"), name, str(seeds)))


@pytest.mark.parametrize("name", bugs.names())
def test_a_bug_says_what_it_is(name):
    bug = bugs.load(name)
    assert bug.name == name
    assert bug.mistake and bug.breaks and bug.seen_in and bug.faults
    assert bug.test in suite.TESTS
    Config.from_mapping("a cluster", dict(bug.node_options))
    assert ast.get_docstring(ast.parse(Path(sys.modules[bug.module].__file__ or "").read_text()))


@pytest.mark.parametrize("name", bugs.names())
def test_a_bug_can_be_planted_and_a_node_starts_with_it(name):
    module = bugs.load(name).module
    assert "--id" in in_a_process("-m", module, "--help")


def test_every_bug_has_its_story():
    assert set(bugs.names()) == set(FOUND_BY) | ABOVE_RAFT | ONLY_SIMULATED


@pytest.mark.parametrize("name", FOUND_BY)
def test_a_bug_shows(name):
    found = hunt(name, 300)
    assert found["found"], f"not within {found['seeds']} stories"
    assert FOUND_BY[name] in found["by"]


def simulated(name: str, seed: int) -> dict:
    command = ["bugs", name, "--first-seed", str(seed), "--seeds", "1", "--jobs", "1", "--json", "--store", "store"]
    ended = subprocess.run([sys.executable, "-m", "raftbed.cli", *command], capture_output=True, text=True, check=False)
    return json.loads(ended.stdout)["bugs"][0]


@pytest.mark.parametrize("name", FOUND_IN_SIMULATION)
def test_a_bug_that_needs_more_than_stories_shows_in_simulation(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seed, by = FOUND_IN_SIMULATION[name]
    hunt = simulated(name, seed)
    assert by in hunt["by"] + hunt["invariants"]


def test_without_a_bug_nothing_shows():
    assert hunt("none", 60)["by"] == []


def test_the_documents_table_is_that_of_the_code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import bugs_table

    assert bugs_table.catalogue() in bugs_table.DOCUMENT.read_text(), "run tools/bugs_table.py"
