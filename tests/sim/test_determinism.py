"""The same seed is the same run, to the byte: in another process, under another hash seed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from raftbed.plan import PlanSettings, make_plan
from raftbed.sim.simulation import Simulation
for seed in map(int, sys.argv[2:]):
    settings = PlanSettings(test=sys.argv[1], hosts="simulated")
    print(seed, Simulation(make_plan(settings, seed=seed)).run().trace_hash())
"""


def hashes(test: str, seeds: range, hash_seed: str) -> list[str]:
    """Seed and trace hash of each run, from a process of its own."""
    command = [sys.executable, "-c", PROGRAM, test, *map(str, seeds)]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return ended.stdout.splitlines()


def test_runs_repeat_in_other_processes_under_other_hash_seeds():
    first, second = hashes("chaos-test", range(5), "1"), hashes("chaos-test", range(5), "4711")
    assert len(first) == 5
    assert first == second


def test_other_seeds_are_other_runs():
    found = [line.split()[1] for line in hashes("chaos-test", range(5), "0")]
    assert len(set(found)) == 5


@pytest.mark.soak
@pytest.mark.parametrize("test", ["chaos-test", "partition-test", "crash-test"])
def test_fifty_seeds_repeat(test):
    assert hashes(test, range(100, 150), "1") == hashes(test, range(100, 150), "4711")
