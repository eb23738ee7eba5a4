"""The 150 recorded histories with known verdicts: of etcd, of a key-value store, and synthetic ones.

They are not part of the distribution; without them these tests are skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raftbed.analysis.linearizability import check_limited
from raftbed.record import read_history

HISTORIES = Path(__file__).parents[4] / "shared" / "histories"
MANIFEST = HISTORIES / "manifest.json"
ENTRIES: list[dict[str, Any]] = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else []
SECONDS_EACH = 30.0


@pytest.mark.skipif(not ENTRIES, reason=f"the recorded histories are not in {HISTORIES.name}/ beside the repository")
def test_all_recorded_verdicts_are_there() -> None:
    assert len(ENTRIES) == 150


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: Path(entry["file"]).name.removesuffix(".jsonl.gz"))
def test_recorded_verdict(entry: dict[str, Any]) -> None:
    # Up to five may stay unknown, none of etcd's. None does; should one ever have to, it is named here.
    may_be_unknown: frozenset[str] = frozenset()
    _metadata, events = read_history(HISTORIES / entry["file"])
    verdict = check_limited(events, entry["model"], time_limit=SECONDS_EACH)
    expected = {"valid"} if entry["valid"] else {"invalid"}
    if entry["file"] in may_be_unknown:
        expected.add("unknown")
    assert verdict.validity in expected, verdict.summary
    if verdict.validity == "invalid":
        witness = verdict.details["witness"]
        assert 1 <= len(witness["operations"]) <= 6
        assert witness["sentence"]
