"""One small history per rule, with its verdict and, word for word, what is said about it.

The histories lie in tests/golden/linearizability; their first line says what each of them is about.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from raftbed.analysis.linearizability import check
from raftbed.record import read_history

GOLDEN = Path(__file__).parents[2] / "golden" / "linearizability"
FILES = sorted(GOLDEN.glob("*.jsonl"))


def test_the_histories_are_there() -> None:
    assert len(FILES) > 30


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_verdict_and_sentence(path: Path) -> None:
    expected, events = read_history(path)
    verdict = check(events, expected["model"])
    witness = verdict.details["witness"]
    assert verdict.validity == expected["verdict"], expected["about"]
    assert expected["sentence"] in verdict.summary
    assert (witness["sentence"] if witness else verdict.summary) == expected["sentence"]
    assert ([op["index"] for op in witness["operations"]] if witness else None) == expected.get("operations")
