"""The experiments with the Raft node: they run in small, and they would see what they are there to see."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from raftbed.nodes.raft.messages import Entry, Normal
from raftbed.nodes.storage import open_storage

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


def experiment(scratch: Path, *arguments: str) -> str:
    """What it printed. Whether bounds of time hold is not asked here."""
    ended = subprocess.run(
        [sys.executable, str(BENCHMARKS / "raft_experiments.py"), *arguments],
        capture_output=True,
        text=True,
        env={"TMPDIR": str(scratch), "PATH": "/usr/bin:/bin"},
        timeout=120,
        check=False,
    )
    assert ended.stderr == ""
    assert list(scratch.iterdir()) == [], "nothing is left"
    return ended.stdout


def test_leaders_change_and_nothing_is_lost_or_done_twice(tmp_path: Path) -> None:
    said = experiment(tmp_path, "leader-change", "--rounds", "1", "--sizes", "3", "--clients", "2")
    assert "| 3 | kill |" in said
    assert "| 3 | transfer |" in said
    assert " 0 wrong " in said


def test_state_goes_to_a_joiner_and_survives_restarts(tmp_path: Path) -> None:
    said = experiment(tmp_path, "large-state", "--megabytes", "2")
    assert "joiner n4 restarted" in said
    assert "wrong answers: 0" in said


def audited(directory: Path, commands: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the audit finds wrong with a log of these commands, whose client had two writes acknowledged."""
    change, sessions = module("cluster.leader_change", monkeypatch), module("cluster.sessions", monkeypatch)
    nodes = module("cluster.nodes", monkeypatch).Nodes(directory, 1)
    storage = open_storage(nodes.directory / "n1", change.CountingMachine())
    storage.get_initial_state()
    storage.persist(None, None, [Entry(number, 1, Normal(data)) for number, data in enumerate(commands, 1)])
    storage.close()
    client = sessions.SessionClient("c", [1], change.count_up, sessions.Tally())
    client.serial = 2
    found: list[str] = change.audit(nodes, [client])[1]
    return found


def command(serial: int) -> dict[str, object]:
    return {"op": "cas", "key": "c", "old": serial - 1 or None, "new": serial, "client": "c", "serial": serial}


def test_the_audit_accepts_a_retry_that_was_committed_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audited(tmp_path, [command(1), command(1), command(2)], monkeypatch) == []


def test_the_audit_sees_a_lost_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audited(tmp_path, [command(1)], monkeypatch) == ["c, serial 2: acknowledged, and in no log"]


def test_the_audit_sees_a_write_that_was_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change = module("cluster.leader_change", monkeypatch)
    monkeypatch.setattr(change.CountingMachine, "apply", forgetful_apply)
    commands = [
        command(1),
        command(2),
        {**command(2), "op": "put", "value": 2},
        {**command(2), "op": "put", "value": 2},
    ]
    assert audited(tmp_path, commands, monkeypatch) == ["n1 executed ('c', 2) more than once"]


def forgetful_apply(machine: object, command: dict[str, object]) -> object:
    """As if there were no sessions."""
    return machine.execute(command)  # type: ignore[attr-defined]


def test_a_gap_is_between_acknowledged_writes_or_at_the_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = module("cluster.sessions", monkeypatch).Tally(acknowledged=[(1.0, 0.1), (2.0, 0.1), (5.0, 0.1)])
    assert tally.longest_gap(0.5, 6.0) == 3.0
    assert tally.longest_gap(0.5, 20.0) == 15.0
    assert module("cluster.sessions", monkeypatch).Tally().longest_gap(1.0, 2.0) == 1.0


def test_memory_that_rises_in_the_second_half_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    soak = module("cluster.soak", monkeypatch)
    filled = [(float(second), min(50.0 + second, 100.0)) for second in range(120)]
    leaking = [(float(second), 50.0 + second) for second in range(120)]
    assert soak.rise(filled) == (0.0, 0.0)
    slope, part = soak.rise(leaking)
    assert slope == pytest.approx(60.0)
    assert part > soak.GROWTH
