"""Lets tests run side by side: the longest files begin first, and each process remembers hosts in its own place."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

TESTS = Path(__file__).resolve().parent

LONGEST_FIRST = (
    "live/test_inventory.py",
    "live/test_end_to_end.py",
    "live/test_cluster.py",
    "live/test_hosts_as_user.py",
    "live/test_docker.py",
    "live/test_host_contract.py",
    "live/test_sudo.py",
    "live/test_faults_local.py",
    "sim/test_stories.py",
    "sim/test_shell_simulation.py",
    "unit/bugs/test_bugs.py",
    "unit/test_host_problems.py",
    "sim/test_shell_bugs.py",
    "live/test_lifecycle.py",
    "unit/raft_invariants/test_stories.py",
    "unit/linearizability/test_recorded.py",
    "live/test_hosts_local.py",
    "live/test_pools_local.py",
    "unit/test_raft_experiments.py",
    "unit/raft/test_simulation.py",
    "live/test_vagrant.py",
    "test_static.py",
    "sim/test_simulation.py",
)
"""Files that take more than ten seconds, in the order of what they take; all others come after them as they stand."""


def pytest_configure(config: pytest.Config) -> None:
    # Left alone, pytest-xdist begins with the files that hold the most tests; the longest hold few.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    # Local hosts that are kept are remembered there: a test must not see those of another one beside it.
    place = tempfile.mkdtemp(prefix="raftbed-tests-")
    os.environ["XDG_RUNTIME_DIR"] = place
    config.add_cleanup(lambda: shutil.rmtree(place, ignore_errors=True))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {TESTS / name: position for position, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
