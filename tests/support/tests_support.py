"""Builders that several test modules share."""

from __future__ import annotations

from typing import Any

from raftbed.model import Plan


def make_plan_for_tests(*, nodes: int = 3, **changes: Any) -> Plan:
    """A small plan with no faults, changed as asked."""
    fields: dict[str, Any] = {
        "test": "smoke-test",
        "system": "raft",
        "hosts": "local",
        "nodes": tuple(f"n{number}" for number in range(1, nodes + 1)),
        "workload": "register",
        "faults": (),
        "checks": ("linearizable", "availability", "statistics", "node-health", "fault-coverage"),
        "seed": 1,
        "time_limit": 5.0,
        "concurrency": 2 * nodes,
        "rate": 100.0,
        "keys": 3,
        "operation_timeout": 2.0,
        "recovery_timeout": 10.0,
    }
    return Plan(**{**fields, **changes})
