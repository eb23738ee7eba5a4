"""Check ``fault-coverage``: did the planned faults take effect while clients were at work?

A run whose faults never took shows nothing about faults, and is *unknown* rather than valid. So is one in which a fault
failed or acted on nobody, a heal was not proved, or no operation was under way while a fault was in force.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from raftbed.analysis.operations import Span, Window, spans_of, windows
from raftbed.model import SECOND, Verdict
from raftbed.store import RunDirectory

CHECKER = "fault-coverage"


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory."""
    plan = run.plan()
    found, operations = windows(plan.schedule, run.faults()), spans_of(run)
    if run.manifest().state == "ended":
        return judge(found, operations, wanted=plan.faults)
    phases = {event.message: event.time for event in run.events() if event.kind == "phase"}
    begin = phases.get("clients")
    last = phases.get("heal", max((event.time for event in run.events()), default=0))
    stopped = (last - begin) / SECOND if begin is not None else 0.0
    return judge(found, operations, wanted=plan.faults, stopped_after=stopped, healed_all="recovery" in phases)


def judge(
    faults: Sequence[Window],
    operations: Sequence[Span],
    *,
    wanted: Sequence[str] = (),
    stopped_after: float | None = None,
    healed_all: bool = True,
) -> Verdict:
    """Judge planned faults against what was under way.

    Parameters:
        faults: what became of each planned one.
        operations: of the clients.
        wanted: the kinds of fault that the plan asks for.
        stopped_after: seconds after which a run was stopped; faults that had not ended by then are judged only as far
            as they came.
        healed_all: the run came to heal everything.
    """
    if not faults and wanted:
        summary = f"The schedule is empty, although the plan asks for {' and '.join(wanted)}."
        return Verdict(CHECKER, "unknown", summary, {"faults": []})
    if not faults:
        return Verdict(CHECKER, "valid", "No faults were planned.", {"faults": []})
    over = [window for window in faults if stopped_after is None or window.step.until <= stopped_after]
    due = [window for window in faults if window in over or window.proved is not None or window.failures]
    calls = sorted(span.call for span in operations)
    ends = sorted(span.end for span in operations if span.end is not None)
    table = [_row(window, calls, ends) for window in faults]
    details = {"faults": table, "due": len(due)}
    proved = [window for window in due if window.proved is not None]
    idle = [window for window in proved if _was_done_already(window, faults)]
    if len(idle) == len(proved):
        return Verdict(CHECKER, "unknown", "No fault took effect, so the run shows nothing about faults.", details)
    met = {row["fault"]: row["operations"] for row in table}
    problems = [f"{window.step.id} failed: {window.failures[0]}" for window in due if window.failures]
    problems += [f"{window.step.id} was not proved" for window in due if window.proved is None and not window.failures]
    problems += [f"{window.step.id} acted on no node" for window in proved if not window.nodes]
    if healed_all:
        problems += [f"{window.step.id} was not healed" for window in proved if window.healed is None]
    problems += [
        f"no operation was under way during {window.step.id}"
        for window in proved
        if window in over and not met[window.step.id]
    ]
    counted = f"{len(proved) - len(idle)} of {len(due)} faults took effect"
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Verdict(CHECKER, "unknown", f"{counted}; {problems[0]}{more}.", details)
    said = f"{counted}, were proved and healed, and met operations."
    if not healed_all:
        said = f"{counted}, were proved, and met operations; the run was cut off before its final heal."
    if len(due) < len(faults):
        said += f" {len(faults) - len(due)} more were planned for after the run was stopped."
    for window in idle:
        said += f" {window.step.id} had no effect of its own: {' '.join(window.nodes)} had been killed before."
    lost = [window.step.id for window in proved if _aimed_at_nobody(window.detail.get("injected", {}))]
    if lost:
        said += f" {' '.join(lost)} found no leader to aim at."
    return Verdict(CHECKER, "valid", said, details)


def _aimed_at_nobody(circumstances: Mapping[str, Any]) -> bool:
    """Nobody led when a fault came to strike the leader, and nobody was known to have led before."""
    return circumstances.get("leader", "") is None and not circumstances.get("led_last")


def _was_done_already(window: Window, faults: Sequence[Window]) -> bool:
    """All that a kill killed was held down by other kills when it came."""
    if window.step.kind != "kill" or window.injected is None:
        return False
    down = {
        node
        for other in faults
        if other.step.kind == "kill" and other.injected is not None and other.injected < window.injected
        if other.healed is None or other.healed > window.injected
        for node in other.nodes
    }
    return set(window.nodes) <= down


def _row(window: Window, calls: Sequence[int], ends: Sequence[int]) -> dict[str, object]:
    during = 0
    if window.injected is not None:  # those that were invoked before it was over, but those that ended before it began
        begun = len(calls) if window.healed is None else bisect_right(calls, window.healed)
        during = begun - bisect_left(ends, window.injected)
    return {
        "fault": window.step.id,
        "kind": window.step.kind,
        "shape": window.step.shape,
        "proved": window.proved is not None,
        "healed": window.healed is not None,
        "operations": during,
        "failures": list(window.failures),
    }
