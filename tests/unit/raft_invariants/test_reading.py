"""What is no trace, or not all of it: the verdict says how much was seen, and what was missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests_support import make_plan_for_tests, make_run
from tests_traces import Lines, write_traces

from raftbed.analysis import raft_invariants
from raftbed.analysis.checks import run_checks
from raftbed.analysis.raft_invariants import judge, records

BOOT = {"event": "boot", "term": 0, "voted_for": None, "last": 0, "last_term": 0, "hash": "00"}
LEADS = {"event": "role", "term": 1, "role": "leader", "leader": "n1"}
APPEND = {"event": "append", "term": 1, "first": 1, "last": 1, "terms": [1], "hashes": ["a1"]}
COMMIT = {"event": "commit", "term": 1, "index": 1, "hash": "a1"}
ALONE: Lines = [
    {"seq": seq, **record}
    for seq, record in enumerate([{"event": "process"}, BOOT, LEADS, APPEND, COMMIT, {"event": "end"}])
]


def test_a_verdict_says_how_much_was_seen(tmp_path):
    verdict = judge(write_traces(tmp_path, {"n1": ALONE}))
    assert verdict.validity == "valid"
    assert (
        verdict.summary == "All invariants hold in 6 records of 1 nodes (1 starts, 1 terms with a leader, 1 entries)."
    )
    assert verdict.details["nodes"]["n1"] == {
        "records": 6, "entries": 1, "boots": 1, "unreadable_lines": 0, "is_whole": True
    }  # fmt: skip


def test_traces_that_are_missing_are_named(tmp_path):
    (tmp_path / "n3.jsonl").write_bytes(b"")
    verdict = judge({**write_traces(tmp_path, {"n1": ALONE}), "n2": None, "n3": tmp_path / "n3.jsonl"})
    assert verdict.validity == "valid"
    assert "(n2: there is no trace; n3: its trace is empty)" in verdict.summary
    assert verdict.details["missing"].keys() == {"n2", "n3"}


def test_no_trace_at_all_is_unknown(tmp_path):
    verdict = judge({"n1": None, "n2": tmp_path})  # a directory cannot be read
    assert verdict.validity == "unknown"
    assert verdict.summary.startswith("No trace could be read, so that nothing was judged.")
    assert "n2: its trace could not be read: Is a directory" in verdict.summary


def test_a_cluster_that_committed_nothing_is_unknown(tmp_path):
    verdict = judge(write_traces(tmp_path, {"n1": ALONE[:3]}))
    assert verdict.validity == "unknown"
    assert "nothing that was committed" in verdict.summary


@pytest.mark.parametrize(
    "line",
    [
        b'{"event": "comm',
        b"\xff\x00\xfe",
        b"",
        b"[1]",
        b'{"event": "commit", "term": -1, "index": 1, "hash": "a1"}',
        b'{"event": "commit", "term": 1, "hash": "a1"}',
        b'{"event": "commit", "term": 1, "index": 99999999999999999999, "hash": "a1"}',
        b'{"event": "commit", "term": 1, "index": 2, "hash": "no hash"}',
        b'{"event": "append", "term": 1, "first": 2, "last": 5, "terms": [1], "hashes": ["a2"]}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_record_is_counted_and_passed_over(tmp_path, line):
    paths = write_traces(tmp_path, {"n1": ALONE})
    path = tmp_path / "n1.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    verdict = judge(paths)
    assert verdict.validity == "valid"
    assert "(n1: parts are missing, 1 lines are unreadable)" in verdict.summary


@pytest.mark.parametrize("text", ["-1", "+a1", "0xa1", "a_1", " a1", "a1\n", "zz", "\u0661"])
def test_a_hash_that_is_none_accuses_no_other_node(tmp_path, text):
    follows = {"event": "role", "term": 1, "role": "follower", "leader": "n1"}
    follower = [{"event": "process"}, BOOT, follows, {**APPEND, "hashes": [text]}]
    verdict = judge(write_traces(tmp_path, {"n2": [{"seq": n, **r} for n, r in enumerate(follower)], "n1": ALONE}))
    assert verdict.validity == "valid"
    assert "n2: parts are missing, 1 lines are unreadable" in verdict.summary


def test_a_line_without_end_is_not_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LONGEST_LINE", 3 << 20)
    path = tmp_path / "n1.jsonl"
    write_traces(tmp_path, {"n1": ALONE})
    path.write_bytes(b"x" * (8 << 20) + b"\n" + path.read_bytes() + b"y" * (5 << 20))
    read = list(records.read_trace(path))
    assert [number for number, record in read if record is None] == [1, 8]
    assert records.line_of(path, 7) == json.dumps({"node": "n1", **ALONE[-1]})


def test_records_and_fields_of_later_versions_are_passed_over(tmp_path):
    later = [*ALONE[:-1], {"seq": 5, "event": "snapshot-chunk", "size": 1}, {"seq": 6, "event": "end", "why": "asked"}]
    verdict = judge(write_traces(tmp_path, {"n1": later}))
    assert (verdict.validity, verdict.details["nodes"]["n1"]["is_whole"]) == ("valid", True)


def test_a_gap_in_the_numbers_is_noticed(tmp_path):
    verdict = judge(write_traces(tmp_path, {"n1": ALONE[:3] + ALONE[4:]}))
    assert verdict.details["nodes"]["n1"]["is_whole"] is False


def test_a_run_is_judged_by_the_traces_that_were_fetched_and_only_where_its_plan_asks(tmp_path):
    run = make_run(tmp_path, make_plan_for_tests(nodes=2, checks=("raft-invariants",)))
    lines = b"".join(json.dumps(line).encode() + b"\n" for line in ALONE)
    (run.node_directory("n1") / "trace.jsonl").write_bytes(lines)
    results = run_checks(run, run.plan().checks, time_limit=10, memory_limit=1 << 30)
    (verdict,) = results.verdicts
    assert (verdict.checker, verdict.validity) == (raft_invariants.CHECKER, "valid")
    assert "n2: there is no trace" in verdict.summary
    before = make_run(tmp_path)  # its plan is of a time when there was no such check
    names = {v.checker for v in run_checks(before, before.plan().checks, time_limit=10, memory_limit=1 << 30).verdicts}
    assert raft_invariants.CHECKER not in names


def test_paths_in_a_verdict_are_those_of_the_files(tmp_path):
    bad = [*ALONE[:-1], {"seq": 5, **COMMIT}]
    (violation,) = judge(write_traces(tmp_path, {"n1": bad})).details["violations"]
    assert [Path(record["file"]).name for record in violation["records"]] == ["n1.jsonl", "n1.jsonl"]
    assert [record["line"] for record in violation["records"]] == [5, 6]


def test_what_a_lost_end_may_have_told_is_no_violation(tmp_path):
    # It may have followed the leader of term 2, which made it drop the entry.
    killed = [*ALONE[:5], {"seq": 5, "event": "durable", "term": 1, "index": 1, "hash": "a1"}]
    again = {**BOOT, "term": 2, "seq": 1}
    paths = write_traces(tmp_path, {"n1": [*killed, {"event": "process", "seq": 0}, again]})
    assert judge(paths).validity == "valid"
    paths = write_traces(tmp_path, {"n1": [*killed, {"event": "process", "seq": 0}, {**again, "term": 1}]})
    assert judge(paths).details["counts"] == {"durability": 1}  # in its own term no leader can have done so
