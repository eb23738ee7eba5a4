"""Traces for tests: written by hand, and taken from random stories of the harness in tests/unit/raft."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "raft"))

Lines = list[dict[str, Any]]


class Recorder:
    """Takes the place of the harness's `Invariants`: records what they judge, and judges nothing."""

    def __init__(self) -> None:
        self.traces: dict[str, Lines] = {}
        self.committed: tuple[int, int, str] = (0, 0, "")

    def see(self, core: Any, trace: Any) -> None:
        lines = self.traces.setdefault(core.id, [])
        if trace.event == "boot":
            if lines:
                lines.append({"event": "end", "seq": lines[-1]["seq"] + 1})  # the harness loses no record in a crash
            lines.append({"event": "process", "seq": 0})
        elif trace.event == "commit" and trace.fields["index"] > self.committed[0]:
            self.committed = (trace.fields["index"], trace.fields["term"], trace.fields["hash"])
        lines.append({"seq": lines[-1]["seq"] + 1, "event": trace.event, **json.loads(json.dumps(trace.fields))})

    def see_applied(self, entries: Iterable[Any]) -> None:
        pass

    def finish(self) -> dict[str, Lines]:
        for lines in self.traces.values():
            lines.append({"event": "end", "seq": lines[-1]["seq"] + 1})
        return self.traces


def story_traces(seed: int) -> tuple[dict[str, Lines], BaseException | None]:
    """The traces of a random story of tests/unit/raft/test_simulation.py, and what ended it early, if anything did."""
    import raft_harness

    recorders: list[Recorder] = []

    def recorder() -> Recorder:
        recorders.append(Recorder())
        return recorders[-1]

    kept, raft_harness.Invariants = raft_harness.Invariants, recorder  # type: ignore[assignment,misc]
    try:
        import test_simulation

        test_simulation.story(seed)
        ended = None
    except Exception as error:
        ended = error
    finally:
        raft_harness.Invariants = kept  # type: ignore[misc]
    return recorders[-1].finish(), ended


def write_traces(directory: Path, traces: Mapping[str, Lines]) -> dict[str, Path | None]:
    """Write traces as files; returns what `raft_invariants.judge` takes."""
    paths: dict[str, Path | None] = {}
    for node, lines in traces.items():
        path = directory / f"{node}.jsonl"
        path.write_bytes(b"".join(json.dumps({"node": node, **line}).encode() + b"\n" for line in lines))
        paths[node] = path
    return paths
