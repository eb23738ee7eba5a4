"""The node's trace file: whole lines only, whatever the disk and a kill do; and a node that goes on without it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from raftbed.nodes.raft import Trace
from raftbed.nodes.trace import TRACE_SCHEMA, TraceFile

COMMIT = Trace("commit", {"term": 1, "index": 1, "hash": "00"})


def records(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_record_says_when_who_and_what(tmp_path):
    clock = iter(range(100, 200)).__next__
    trace = TraceFile(tmp_path / "t", "n1", clock)
    trace([COMMIT, Trace("role", {"term": 2, "role": "follower", "leader": None})])
    trace.close()
    process, *rest = records(tmp_path / "t")
    assert process["seq"] == 0
    assert (process["event"], process["schema"], process["pid"]) == ("process", TRACE_SCHEMA, os.getpid())
    assert rest == [
        {"time": 101, "node": "n1", "seq": 1, "event": "commit", "term": 1, "index": 1, "hash": "00"},
        {"time": 102, "node": "n1", "seq": 2, "event": "role", "term": 2, "role": "follower", "leader": None},
        {"time": 103, "node": "n1", "seq": 3, "event": "end"},
    ]


def test_a_restarted_node_goes_on_behind_a_line_that_a_kill_tore(tmp_path):
    TraceFile(tmp_path / "t", "n1").close(whole=False)
    with (tmp_path / "t").open("a") as file:
        file.write('{"time": 1, "no')
    trace = TraceFile(tmp_path / "t", "n1")
    trace([COMMIT])
    trace.close()
    lines = (tmp_path / "t").read_text().splitlines()
    assert lines.pop(1) == '{"time": 1, "no'
    assert [json.loads(line)["event"] for line in lines] == ["process", "process", "commit", "end"]


def test_a_full_disk_ends_the_trace_with_one_line_in_the_log(caplog):
    trace = TraceFile(Path("/dev/full"), "n1")
    trace([COMMIT])
    trace([COMMIT])
    trace.close()
    assert [record.getMessage() for record in caplog.records] == ["the trace is given up: No space left on device"]


def test_a_disk_that_takes_a_part_ends_the_trace_too(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    trace = TraceFile(tmp_path / "t", "n1")
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
        trace([COMMIT])
    trace([COMMIT])  # there is room again; what was torn stays the last line, as after a kill
    trace.close()
    *whole, torn = (tmp_path / "t").read_text().split("\n")
    assert (len(whole), len(torn)) == (1, 10)
    assert len(caplog.records) == 1
