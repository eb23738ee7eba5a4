"""Builders that several test modules share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from raftbed.model import SECOND, Op, Plan
from raftbed.record import LineWriter, op_record
from raftbed.store import Manifest, RunDirectory, Store


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


def make_run(root: Path, plan: Plan | None = None, *, state: str = "ended") -> RunDirectory:
    """A run directory with a plan and a manifest, and nothing else yet."""
    plan = plan or make_plan_for_tests()
    run = Store(root / "store").new_run(plan.test)
    run.write_plan(plan)
    manifest = Manifest(
        run=f"{plan.test}/{run.path.name}",
        state=state,  # type: ignore[arg-type]  # a test may write any
        command="raftbed run smoke-test --seed 1",
        started="2026-01-01T00:00:00+00:00",
        duration=9.5,
        versions={"raftbed": "0.1.0"},
        machine={"cores": 2},
        node_addresses={node: f"10.0.0.{number}" for number, node in enumerate(plan.nodes, 1)},
    )
    run.write_manifest(manifest)
    return run


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """Append records to a JSON Lines file."""
    with LineWriter(path) as writer:
        for record in records:
            writer.write(op_record(record) if isinstance(record, Op) else record)


class HistoryBuilder:
    """Writes histories the way one tells them; times are seconds."""

    def __init__(self) -> None:
        self.ops: list[Op] = []

    def op(
        self,
        process: int,
        f: str,
        key: Any,
        value: Any,
        *,
        call: float,
        end: float | None,
        type: str = "ok",
        result: Any = None,
        error: str | None = None,
        node: str | None = "n1",
    ) -> HistoryBuilder:
        """One operation; `end` None leaves it without a completion. A read's value is `result`."""
        reads = f == "read"
        self.ops.append(Op(0, int(call * SECOND), "invoke", process, f, key, None if reads else value, node=node))
        if end is not None:
            recorded = result if reads else value
            done = Op(0, int(end * SECOND), type, process, f, key, recorded, error, node)  # type: ignore[arg-type]
            self.ops.append(done)
        return self

    def sorted(self) -> list[Op]:
        """The events in order of time, and numbered so."""
        in_order = sorted(self.ops, key=lambda op: op.time)
        return [replace(op, index=index) for index, op in enumerate(in_order)]
