"""Check ``availability``: how long nothing succeeded, and how soon the cluster served again after each heal.

The run is *invalid* when clients asked, after the final heal, for as long as the plan allows for recovery, one attempt
close behind the other, and none was served. The time counts from when they began to ask: while nobody asks, a cluster
may be able to serve all the time. That the controller waited for it in vain proves nothing, because it waits for every
node, and a majority can serve. When clients were served late, but had not asked so long, or not everything could be
healed, the run does not show it, and is *unknown*. Longest gaps and recovery times of single faults are measured and
shown; they have no threshold of their own, because how long a fault may hurt is for the reader to judge.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from typing import Any

from raftbed.analysis.operations import Span, Window, spans_of, windows
from raftbed.model import SECOND, Verdict
from raftbed.store import RunDirectory, RunEvent

CHECKER = "availability"
_PAUSE = 1.0  # seconds between two attempts that still count as asking all the time; a client waits 0.1 s


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory."""
    plan = run.plan()
    return judge(
        spans_of(run), windows(plan.schedule, run.faults()), run.events(), recovery_timeout=plan.recovery_timeout
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
    finish = phases.get("heal", max(span.end or span.call for span in operations))
    ends = [_end(span) for span in acknowledged]
    gap, gap_from = _longest_gap(ends, begin, finish)
    recoveries = [_recovery(window, acknowledged, ends) for window in faults if window.healed is not None]
    details: dict[str, Any] = {
        "longest_gap": gap / SECOND,
        "longest_gap_from": gap_from,
        "recoveries": recoveries,
        "during_faults": {window.step.id: _during(window, ends) for window in faults},
    }
    said = f"The longest time without a success was {gap / SECOND:.2f} s, from {gap_from / SECOND:.2f} s on"
    known = [recovery["seconds"] for recovery in recoveries if recovery["seconds"] is not None]
    if known:
        heals = "each heal" if len(known) == len(recoveries) else f"{len(known)} of {len(recoveries)} heals"
        said += f"; service was back within {max(known):.2f} s of {heals}"
    if "recovery" not in phases:
        summary = f"The run was cut off before its final heal, so that recovery was not seen. {said}."
        return Verdict(CHECKER, "unknown", summary, details)
    unhealed = [event for event in events if event.kind == "error" and _between(event, phases)]
    if unhealed:
        summary = f"Not everything was healed, so that recovery was not seen: {unhealed[0].message}"
        return Verdict(CHECKER, "unknown", summary, details)
    return _after_the_final_heal(operations, phases["recovery"], recovery_timeout, said, details)


def _between(event: RunEvent, phases: Mapping[str, int]) -> bool:
    """While everything was being healed."""
    return phases.get("heal", phases["recovery"]) <= event.time <= phases["recovery"]


def _after_the_final_heal(
    operations: Sequence[Span], healed: int, recovery_timeout: float, said: str, details: dict[str, Any]
) -> Verdict:
    tried = [span for span in operations if span.call >= healed]
    if not tried:
        details["final_recovery"] = None
        return Verdict(CHECKER, "unknown", f"After the final heal no operation was tried. {said}.", details)
    first = min((span for span in tried if span.type == "ok" and span.end is not None), key=_end, default=None)
    took = details["final_recovery"] = (_end(first) - healed) / SECOND if first else None
    if took is not None and took <= recovery_timeout:
        return Verdict(CHECKER, "valid", f"{said}.", details)
    # At the least time that a plan can allow, two attempts that are far apart must not fill it.
    pause = int(min(_PAUSE, recovery_timeout / 5) * SECOND)
    asked = details["final_asked"] = _asked_in_vain(tried, first, pause) / SECOND
    allowed = f"the plan allows {recovery_timeout:g} s"
    if asked >= recovery_timeout:
        if took is None:
            summary = f"Nothing succeeded any more after the final heal, though clients asked for {asked:.2f} s"
        else:
            summary = f"After the final heal clients asked for {asked:.2f} s until an operation succeeded"
        return Verdict(CHECKER, "invalid", f"{summary}; {allowed}.", details)
    if took is None:
        summary = f"Nothing succeeded after the final heal, but clients asked for {asked:.2f} s only; {allowed}."
    else:
        summary = (
            f"The first success came {took:.2f} s after the final heal, and {allowed}; but clients asked for "
            f"{asked:.2f} s only, so that the cluster may have been able to serve before."
        )
    return Verdict(CHECKER, "unknown", summary, details)


def _asked_in_vain(tried: Sequence[Span], first: Span | None, pause: int) -> int:
    """The longest time for which clients asked, never pausing for longer than `pause`, until `first` was served."""
    longest, begin, end = 0, None, 0
    for span in sorted(tried, key=lambda span: span.call):
        if first is not None and span.call >= _end(first):
            break
        if begin is None or span.call > end + pause:
            begin = end = span.call
        # What became of an operation without a completion is not known from its call on, nor that somebody waited.
        answered = span.call if span.end is None else span.end
        end = max(end, answered if first is None else min(answered, _end(first)))
        longest = max(longest, end - begin)
    return longest


def _end(span: Span) -> int:
    assert span.end is not None
    return span.end


def _longest_gap(ends: Sequence[int], begin: int, finish: int) -> tuple[int, int]:
    """The longest time between two successes while clients were at work, and when it began."""
    marks = [begin, *ends[bisect_left(ends, begin) : bisect_right(ends, finish)], max(begin, finish)]
    return max((later - earlier, earlier) for earlier, later in pairwise(marks))


def _recovery(window: Window, acknowledged: Sequence[Span], ends: Sequence[int]) -> dict[str, Any]:
    """From the heal to the completion of the first success that was invoked after it."""
    assert window.healed is not None
    later = islice(acknowledged, bisect_left(ends, window.healed), None)
    first = next((span for span in later if span.call >= window.healed), None)
    seconds = (_end(first) - window.healed) / SECOND if first else None
    return {"fault": window.step.id, "healed": window.healed, "seconds": seconds}


def _during(window: Window, ends: Sequence[int]) -> int:
    """How many succeeded while a fault was in force."""
    if window.injected is None:
        return 0
    last = bisect_right(ends, window.healed) if window.healed else len(ends)
    return max(0, last - bisect_left(ends, window.injected))
