"""Check ``synced-before-sent``: in the simulator, did a node ever go on as if a write were durable which was not?

The simulated disk knows what was synced. This needs no power failure to show: what a node says of a write that could
still be lost is a promise that it cannot keep.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftbed.model import SECOND, Verdict
from raftbed.store import RunDirectory, RunEvent

CHECKER = "synced-before-sent"


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory."""
    simulated = bool(run.manifest().machine.get("simulated"))
    return judge(run.events(), simulated=simulated)


def judge(events: Sequence[RunEvent], *, simulated: bool) -> Verdict:
    """Judge the events of a run, simulated or not."""
    found = [event for event in events if "unsynced" in event.detail]
    if found:
        first = found[0]
        nodes = sorted({str(event.detail["by"]) for event in found})
        summary = f"At {first.time / SECOND:.3f} s {first.message}"
        return Verdict(CHECKER, "invalid", summary, {"nodes": nodes})
    if not simulated:
        return Verdict(CHECKER, "unknown", "Only a simulated disk tells what was synced.")
    return Verdict(CHECKER, "valid", "Whatever a node said had been synced before.")
