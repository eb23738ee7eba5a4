"""Check ``liveness``: once all faults have ended, does the cluster serve again, and do all nodes catch up?

A system that stops for ever breaks no promise of consistency, so that this is a check of its own. It is *invalid* when,
with nothing in the way any more, no leader was found in the time that the plan allows (endless elections), or no
operation succeeded, or a client was never served (starvation), or nodes did not come to the same applied index. It is
*unknown* where the run did not come so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raftbed.analysis.operations import Span, spans_of
from raftbed.model import SECOND, Verdict
from raftbed.store import RunDirectory, RunEvent, StatusSample

CHECKER = "liveness"


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory."""
    plan = run.plan()
    gone = {node for event in run.faults() for node in event.detail.get("removed_for_good", ())}
    members = [node for node in plan.nodes if node not in gone]
    return judge(spans_of(run), run.status(), run.events(), nodes=members, bound=plan.recovery_timeout)


def judge(
    operations: Sequence[Span],
    status: Sequence[StatusSample],
    events: Sequence[RunEvent],
    *,
    nodes: Sequence[str],
    bound: float,
) -> Verdict:
    """Judge what happened before the first fault and after the last one.

    Parameters:
        operations: of the clients.
        status: samples of the nodes' status; the last one of each node is taken after the final reads.
        events: of the run; its phases tell when faults had ended.
        nodes: all of them that are, in the end, members of the cluster.
        bound: seconds within which there must be a leader that all follow.
    """
    phases = {event.message: event.time for event in events if event.kind == "phase"}
    if any(event.detail.get("cut_off") for event in events):
        return Verdict(CHECKER, "unknown", "The simulation was cut off before its nodes came to rest.")
    if "settle" not in phases:
        return Verdict(CHECKER, "unknown", "The run did not wait for its nodes to come to rest.")
    begin, recovery, reads = phases["clients"], phases["recovery"], phases["final-reads"]
    details: dict[str, Any] = {
        "first_leader_seconds": begin / SECOND,
        "recovery_seconds": (reads - recovery) / SECOND,
        "bound": bound,
    }
    if begin / SECOND >= bound:
        summary = f"Before any fault no leader was found: {_elections(status, 0, begin)}"
        return Verdict(CHECKER, "invalid", summary, details)
    if (reads - recovery) / SECOND >= bound:
        summary = (
            f"All faults had ended, and no leader was found that all follow: {_elections(status, recovery, reads)}"
        )
        return Verdict(CHECKER, "invalid", summary, details)
    tried = [span for span in operations if span.call >= recovery]
    starved = _starved(tried)
    if starved:
        summary = f"All faults had ended and there was a leader, but {starved}"
        return Verdict(CHECKER, "invalid", summary, details)
    last = {sample.node: sample for sample in status if sample.time >= reads}
    applied = {node: last[node].last_applied if node in last else None for node in nodes}
    details["applied"] = applied
    if len(set(applied.values())) > 1 or None in applied.values():
        said = ", ".join(
            f"{node} {index if index is not None else 'does not answer'}" for node, index in applied.items()
        )
        summary = f"All faults had ended, but the nodes did not come to the same applied index: {said}."
        return Verdict(CHECKER, "invalid", summary, details)
    summary = (
        f"After the last fault all nodes followed one leader within {details['recovery_seconds']:.2f} s, every client "
        "was served, and all nodes came to the same applied index."
    )
    return Verdict(CHECKER, "valid", summary, details)


def _starved(tried: Sequence[Span]) -> str:
    """Who was not served; empty when everyone was."""
    if tried and not any(span.type == "ok" for span in tried):
        return f"none of {len(tried)} operations succeeded; the first: {tried[0].error}."
    for key in dict.fromkeys(span.key for span in tried):
        own = [span for span in tried if span.key == key]
        if not any(span.type == "ok" for span in own):
            return f"{own[0].f} of {key!r} failed {len(own)} times in a row; the last: {own[-1].error}."
    return ""


def _elections(status: Sequence[StatusSample], begin: int, end: int) -> str:
    """What the nodes did instead of following a leader, in words."""
    seen = [sample for sample in status if begin <= sample.time <= end]
    seconds = (end - begin) / SECOND
    silent = [
        node for node in dict.fromkeys(s.node for s in seen) if not any(s.reachable for s in seen if s.node == node)
    ]
    if silent:
        return f"{', '.join(silent)} did not answer for {seconds:.1f} s."
    terms = [sample.term for sample in seen if sample.term is not None]
    leaders = {(sample.term, sample.node) for sample in seen if sample.role == "leader"}
    if not terms:
        return f"nobody was looked at in {seconds:.1f} s."
    if max(terms) - min(terms) >= 5:
        return (
            f"endless elections, the term rose from {min(terms)} to {max(terms)} in {seconds:.1f} s, with "
            f"{len(leaders)} leaders that were seen."
        )
    if not leaders:
        return f"in {seconds:.1f} s nobody led, and the term stayed at {max(terms)}."
    return f"in {seconds:.1f} s {len(leaders)} nodes led, but not all followed and caught up."
