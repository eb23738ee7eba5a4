"""Check ``fault-coverage``: did the planned faults take effect while clients were at work?

A run whose faults never took shows nothing about faults, and is *unknown* rather than valid. So is one in which a fault
failed, a heal was not proved, or no operation was under way while a fault was in force.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftbed.analysis.operations import Span, Window, spans, windows
from raftbed.model import SECOND, Verdict
from raftbed.store import RunDirectory

CHECKER = "fault-coverage"


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory."""
    plan = run.plan()
    stopped = None
    if run.manifest().state != "ended":
        phases = {event.message: event.time for event in run.events() if event.kind == "phase"}
        begin = phases.get("clients")
        last = phases.get("heal", max((event.time for event in run.events()), default=0))
        stopped = (last - begin) / SECOND if begin is not None else 0.0
    return judge(windows(plan.schedule, run.faults()), spans(run.history()), stopped_after=stopped)


def judge(faults: Sequence[Window], operations: Sequence[Span], *, stopped_after: float | None = None) -> Verdict:
    """Judge planned faults against what was under way.

    Parameters:
        faults: what became of each planned one.
        operations: of the clients.
        stopped_after: seconds after which a run was stopped; faults planned for later are not judged.
    """
    if not faults:
        return Verdict(CHECKER, "valid", "No faults were planned.", {"faults": []})
    due = [window for window in faults if stopped_after is None or window.step.at < stopped_after]
    table = [_row(window, operations) for window in faults]
    details = {"faults": table, "due": len(due)}
    proved = [window for window in due if window.proved is not None]
    if not proved:
        return Verdict(CHECKER, "unknown", "No fault took effect, so the run shows nothing about faults.", details)
    rows = {row["fault"]: row for row in table}
    problems = [f"{window.step.id} failed: {window.failures[0]}" for window in due if window.failures]
    problems += [f"{window.step.id} was not proved" for window in due if window.proved is None and not window.failures]
    if stopped_after is None:
        problems += [f"{window.step.id} was not healed" for window in proved if window.healed is None]
        problems += [
            f"no operation was under way during {window.step.id}"
            for window in proved
            if not rows[window.step.id]["operations"]
        ]
    counted = f"{len(proved)} of {len(due)} faults took effect"
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Verdict(CHECKER, "unknown", f"{counted}; {problems[0]}{more}.", details)
    skipped = f" {len(faults) - len(due)} more were planned for after the run was stopped." if stopped_after else ""
    return Verdict(CHECKER, "valid", f"{counted}, were proved and healed, and met operations.{skipped}", details)


def _row(window: Window, operations: Sequence[Span]) -> dict[str, object]:
    during = 0
    if window.injected is not None:
        end = window.healed
        during = sum(
            1
            for span in operations
            if (end is None or span.call <= end) and (span.end is None or span.end >= window.injected)
        )
    return {
        "fault": window.step.id,
        "kind": window.step.kind,
        "shape": window.step.shape,
        "proved": window.proved is not None,
        "healed": window.healed is not None,
        "operations": during,
        "failures": list(window.failures),
    }
