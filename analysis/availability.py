"""Check ``availability``: how long nothing succeeded, and how soon the cluster served again after each heal.

The run is *invalid* when clients asked, after the final heal, for as long as the plan allows for recovery, one
attempt close behind the other and of a majority of the nodes, and none was served. The time counts from when they
began to ask: while nobody asks, a cluster may be able to serve all the time. That the controller waited for it in
vain proves nothing, because it waits for every node, and a majority can serve. When clients were served late, but had
not asked so long, or of so many, or not everything could be healed, the run does not show it, and is *unknown*.
Longest gaps and recovery times of single faults are measured and shown; they have no threshold of their own, because
how long a fault may hurt is for the reader to judge.
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
    faults = windows(plan.schedule, run.faults())
    return judge(spans_of(run), faults, run.events(), recovery_timeout=plan.recovery_timeout, nodes=plan.nodes)


def judge(
    operations: Sequence[Span],
    faults: Sequence[Window],
    events: Sequence[RunEvent],
    *,
    recovery_timeout: float,
    nodes: Sequence[str] = (),
) -> Verdict:
    """Judge operations and faults.

    Parameters:
        operations: of the clients.
        faults: what became of the planned ones.
        events: of the controller.
        recovery_timeout: seconds that the cluster has to serve again.
        nodes: of the cluster; a majority of them must have been asked in vain. (): whom clients asked does not matter.
    """
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
    return _after_the_final_heal(operations, phases["recovery"], recovery_timeout, nodes, said, details)


def _between(event: RunEvent, phases: Mapping[str, int]) -> bool:
    """While everything was being healed."""
    return phases.get("heal", phases["recovery"]) <= event.time <= phases["recovery"]


def _after_the_final_heal(
    operations: Sequence[Span],
    healed: int,
    recovery_timeout: float,
    nodes: Sequence[str],
    said: str,
    details: dict[str, Any],
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
    in_vain, of = _asked_in_vain(tried, first, pause)
    asked = details["final_asked"] = in_vain / SECOND
    details["final_asked_of"] = sorted(of)
    allowed = f"the plan allows {recovery_timeout:g} s"
    said = f"clients asked for {asked:.2f} s"
    if asked >= recovery_timeout and len(of) > len(nodes) / 2:
        summary = (
            f"Nothing succeeded any more after the final heal, though {said}"
            if took is None
            else f"After the final heal {said} until an operation succeeded"
        )
        return Verdict(CHECKER, "invalid", f"{summary}; {allowed}.", details)
    only = f"{said} only" if asked < recovery_timeout else f"clients asked only {', '.join(sorted(of))}"
    if took is None:
        summary = f"Nothing succeeded after the final heal, but {only}; {allowed}."
    else:
        summary = (
            f"The first success came {took:.2f} s after the final heal, and {allowed}; but {only}, so that the cluster "
            "may have been able to serve before."
        )
    return Verdict(CHECKER, "unknown", summary, details)


def _asked_in_vain(tried: Sequence[Span], first: Span | None, pause: int) -> tuple[int, set[str]]:
    """The longest time for which clients asked, never pausing for longer than `pause`, until `first` was served.

    Returns:
        Nanoseconds, and the nodes that were asked then.
    """
    longest, of = 0, set[str]()
    begin, end, nodes = None, 0, set[str]()
    for span in sorted(tried, key=lambda span: span.call):
        if first is not None and span.call >= _end(first):
            break
        if begin is None or span.call > end + pause:
            begin = end = span.call
            nodes = set()
        nodes.add(span.asked or "")
        # What became of an operation without a completion is not known from its call on, nor that somebody waited.
        answered = span.call if span.end is None else span.end
        end = max(end, answered if first is None else min(answered, _end(first)))
        if end - begin >= longest:
            longest, of = end - begin, nodes
    return longest, of


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
