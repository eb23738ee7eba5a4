"""The benchmark of a cluster: its load generator understands answers, its ratios are of the same round, and it runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n{} \n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_is_whole_with_its_last_byte(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    is_whole = module("cluster.load", monkeypatch).is_whole
    assert [size for size in range(len(answer) + 1) if is_whole(answer[:size])] == [len(answer)]


def test_every_system_has_what_it_says_that_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systems = module("cluster.systems", monkeypatch)
    for make in systems.SYSTEMS:
        system = make(tmp_path)
        for kind in system.kinds:
            assert {request.split(b" ")[0] for request in system.requests(kind)} <= {b"GET", b"POST", b"PUT"}


def test_ratios_are_of_the_same_round(monkeypatch: pytest.MonkeyPatch) -> None:
    load, command = module("cluster.load", monkeypatch), module("raft_cluster", monkeypatch)

    def run(rate: int) -> object:
        return load.Measured(
            operations=rate, failed=0, seconds=1.0, p50=1 / rate, p99=2 / rate, cpu=[0.5, 0.1], generator_cpu=0.1
        )

    results = {("write", 16): {"raftbed": [run(100), run(50)], "etcd": [run(50), run(100)], "pysyncobj": []}}
    (line,) = command.ratios(results)[2:]
    assert line == "| write | 16 | etcd | 1.25 (0.50 to 2.00) | 1.25 | 1.25 |"
    assert [row.split(" | ")[2] for row in command.table(results)[2:]] == ["raftbed", "etcd"]


def test_it_runs_and_leaves_nothing(tmp_path: Path) -> None:
    options = ["--systems", "raftbed", "--rounds", "1", "--seconds", "0.2", "--clients", "2", "--idle", "0"]
    ended = subprocess.run(
        [sys.executable, str(BENCHMARKS / "raft_cluster.py"), *options],
        capture_output=True,
        text=True,
        env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        timeout=60,
        check=True,
    )
    rows = [line for line in ended.stdout.splitlines() if line.startswith(("| write", "| read"))]
    assert [row.split(" | ")[1:3] for row in rows] == [["2", "raftbed"], ["2", "raftbed"]]
    assert all(row.endswith(" 0 |") for row in rows), "no operation failed"
    assert list(tmp_path.iterdir()) == []
