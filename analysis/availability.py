"""Check ``availability``: how long nothing succeeded, and how soon the cluster served again after each heal.

The run is *invalid* when, after the final heal, no operation succeeded within the time that the plan allows for
recovery. Longest gaps and recovery times of single faults are measured and shown; they have no threshold of their own,
because how long a fault may hurt is for the reader to judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from raftbed.analysis.operations import Span, Window, spans, windows
from raftbed.model import SECOND, Verdict
from raftbed.store import RunDirectory, RunEvent

CHECKER = "availability"


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory."""
    plan = run.plan()
    return judge(
        spans(run.history()), windows(plan.schedule, run.faults()), run.events(), recovery_timeout=plan.recovery_timeout
    )


def judge(
    operations: Sequence[Span], faults: Sequence[Window], events: Sequence[RunEvent], *, recovery_timeout: float
) -> Verdict:
    """Judge operations, faults and the controller's events; `recovery_timeout` is in seconds."""
    acknowledged = sorted((span for span in operations if span.type == "ok" and span.end is not None), key=_end)
    if not acknowledged:
        return Verdict(CHECKER, "unknown", "No operation succeeded, so there is nothing to measure.")
    phases = {event.message: event.time for event in events if event.kind == "phase"}
    begin = phases.get("clients", operations[0].call)
    finish = phases.get("heal", acknowledged[-1].end or begin)
    gap, gap_from = _longest_gap(acknowledged, begin, finish)
    recoveries = [_recovery(window, acknowledged) for window in faults if window.healed is not None]
    details: dict[str, Any] = {
        "longest_gap": gap / SECOND,
        "longest_gap_from": gap_from,
        "recoveries": recoveries,
        "during_faults": {
            window.step.id: sum(1 for span in acknowledged if _during(span, window)) for window in faults
        },
    }
    said = f"The longest time without a success was {gap / SECOND:.2f} s"
    known = [recovery["seconds"] for recovery in recoveries if recovery["seconds"] is not None]
    if known:
        said += f"; service was back within {max(known):.2f} s of each heal"
    healed_at = phases.get("recovery")
    if healed_at is None:
        return Verdict(CHECKER, "valid", f"{said}. The run ended before its final heal.", details)
    after = next((span for span in acknowledged if span.call >= healed_at), None)
    details["final_recovery"] = (_end(after) - healed_at) / SECOND if after else None
    if after is None:
        waited = (events[-1].time - healed_at) / SECOND
        if any(event.message == "final-reads" for event in events) and waited >= recovery_timeout:
            summary = f"Nothing succeeded any more after the final heal, for {waited:.1f} s."
            return Verdict(CHECKER, "invalid", summary, details)
        return Verdict(CHECKER, "unknown", f"The run was cut off {waited:.1f} s after the final heal.", details)
    if details["final_recovery"] > recovery_timeout:
        summary = f"After the final heal it took {details['final_recovery']:.1f} s until an operation succeeded; "
        return Verdict(CHECKER, "invalid", f"{summary}the plan allows {recovery_timeout:g} s.", details)
    return Verdict(CHECKER, "valid", f"{said}.", details)


def _end(span: Span) -> int:
    assert span.end is not None
    return span.end


def _longest_gap(acknowledged: Sequence[Span], begin: int, finish: int) -> tuple[int, int]:
    """The longest time between two successes while clients were at work, and when it began."""
    marks = [begin, *(_end(span) for span in acknowledged if begin <= _end(span) <= finish), max(begin, finish)]
    return max((later - earlier, earlier) for earlier, later in pairwise(marks))


def _recovery(window: Window, acknowledged: Sequence[Span]) -> dict[str, Any]:
    """From the heal to the completion of the first success that was invoked after it."""
    assert window.healed is not None
    first = next((span for span in acknowledged if span.call >= window.healed), None)
    seconds = (_end(first) - window.healed) / SECOND if first else None
    return {"fault": window.step.id, "healed": window.healed, "seconds": seconds}


def _during(span: Span, window: Window) -> bool:
    return window.injected is not None and window.injected <= _end(span) <= (window.healed or _end(span))
