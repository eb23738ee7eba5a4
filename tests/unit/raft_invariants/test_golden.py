"""A good and a bad trace for each invariant: the same little story, and one record that breaks it.

The files are tests/golden/raft_invariants/NAME.good.jsonl and NAME.bad.jsonl; NAME begins with the invariant's. Their
first line says what happens, the others are the records of three nodes. Hashes are short there: a2 is n1's second
entry, b2 another one.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests_traces import Lines, write_traces

from raftbed.analysis.raft_invariants import judge
from raftbed.model import Verdict

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "raft_invariants"
NAMES = sorted(path.name.removesuffix(".bad.jsonl") for path in GOLDEN.glob("*.bad.jsonl"))
INVARIANTS = {
    "election-safety", "log-matching", "leader-completeness", "state-machine-safety", "leader-append-only",
    "one-vote-per-term", "votes-counted", "replicas-counted", "own-term-commit", "monotonic", "applied-within-commit",
    "hard-state", "durability",
}  # fmt: skip


def golden(name: str, directory: Path) -> Verdict:
    """The verdict on a golden file."""
    traces: dict[str, Lines] = {}
    for line in (GOLDEN / f"{name}.jsonl").read_text().splitlines()[1:]:
        record = json.loads(line)
        traces.setdefault(record["node"], []).append(record)
    return judge(write_traces(directory, traces))


def invariant(name: str) -> str:
    return max((known for known in INVARIANTS if name.startswith(known)), key=len)


def test_every_invariant_has_a_pair():
    assert {invariant(name) for name in NAMES} == INVARIANTS
    pairs = {f"{name}.{kind}.jsonl" for name in NAMES for kind in ("good", "bad")}
    assert pairs == {path.name for path in GOLDEN.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_good(name, tmp_path):
    verdict = golden(f"{name}.good", tmp_path)
    assert verdict.validity == "valid", verdict.summary


@pytest.mark.parametrize("name", NAMES)
def test_bad(name, tmp_path):
    verdict = golden(f"{name}.bad", tmp_path)
    assert verdict.validity == "invalid"
    assert verdict.details["counts"] == {invariant(name): 1}


def test_a_violation_names_its_records_and_says_what_contradicts_what(tmp_path):
    verdict = golden("durability.bad", tmp_path)
    sentence = "n2 came back with 1 entries, although entry 2 had been durable there."
    assert verdict.summary == f"durability: {sentence}"
    (violation,) = verdict.details["violations"]
    assert (violation["invariant"], violation["sentence"]) == ("durability", sentence)
    synced, boot = violation["records"]
    assert json.loads(synced["text"])["event"] == "durable"
    assert json.loads(boot["text"])["event"] == "boot"
    assert (synced["node"], synced["line"]) == ("n2", 11)
    assert Path(boot["file"]).read_text().splitlines()[boot["line"] - 1] == boot["text"]
