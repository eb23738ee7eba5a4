"""Tells the stories in transcripts/*.txt again: elections, conflicts, figure 8, joint consensus, snapshots, reads.

``RAFTBED_REWRITE=1 pytest tests/conformance/test_transcripts.py`` writes what comes out into the files, to be read in
the diff.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from transcript import commands, play

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path) -> None:
    rewriting = bool(os.environ.get("RAFTBED_REWRITE"))

    def check(command: str, expected: str, came: str) -> None:
        assert rewriting or came == expected, command

    came = play(path, check)
    if rewriting:
        path.write_text(came)


def test_there_are_stories() -> None:
    told = {path.stem for path in TRANSCRIPTS}
    assert told >= {"elections", "conflicts", "figure8", "joint_consensus", "snapshots", "reads", "transfer"}


def test_a_transcript_that_differs_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "story.txt"
    path.write_text("# nothing happens\ncluster 1\n----\nsomething\n")
    seen: list[tuple[str, str, str]] = []
    play(path, lambda *told: seen.append(told))
    assert seen == [("cluster 1", "something", "ok")]
    assert [*commands("a\n----\nb\n\n# c")] == [([], "a", "b"), (["# c"], None, "")]
