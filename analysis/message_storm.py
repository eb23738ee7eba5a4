"""Check ``message-storm``: in the simulator, did a node ever send many times more than it had reason to?

Nodes that answer each other's answers without end, with no new entry and no request to carry, break no promise of
consistency, and serve nobody: a livelock. The simulator counts what each node sends in a virtual second, and what it
had reason to send (docs/simulation.md). Only a run in which that was counted shows anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftbed.model import SECOND, Verdict
from raftbed.store import RunDirectory, RunEvent

CHECKER = "message-storm"


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory."""
    return judge(run.events())


def judge(events: Sequence[RunEvent]) -> Verdict:
    """Judge the events of a run."""
    storms = [event for event in events if "storm" in event.detail]
    if storms:
        first, most = storms[0], max(storms, key=lambda event: int(event.detail["storm"]["sent"]))
        details: dict[str, Any] = {
            "storms": [{"time": event.time, **event.detail["storm"]} for event in storms],
            "nodes": sorted({str(event.detail["storm"]["node"]) for event in storms}),
        }
        worst = most.detail["storm"]
        summary = (
            f"{worst['node']} sent {worst['sent']} messages within a second, when it had reason for {worst['reasons']} "
            f"at most: heartbeats, elections, and what clients asked and it appended. Nodes answer each other without "
            f"end since about {first.time / SECOND - 1:.1f} s."
        )
        return Verdict(CHECKER, "invalid", summary, details)
    busiest = next((event.detail["busiest"] for event in events if "busiest" in event.detail), None)
    if busiest is None:
        return Verdict(CHECKER, "unknown", "What nodes sent was not counted.")
    summary = (
        f"No node sent many times more than it had reason to; {busiest['node']} came closest, with {busiest['sent']} "
        f"messages within a second, and reason for {busiest['reasons']}."
    )
    return Verdict(CHECKER, "valid", summary, {"busiest": busiest})
