"""Check ``statistics``: what the clients did and how long it took; *unknown* when too little happened to judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from raftbed.analysis.operations import Span, spans_of
from raftbed.model import SECOND, Verdict
from raftbed.store import RunDirectory

CHECKER = "statistics"
_PERCENTILES = (50, 90, 99, 100)


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory."""
    return judge(spans_of(run))


def judge(operations: Sequence[Span]) -> Verdict:
    """Judge operations."""
    by_f: dict[str, Any] = {}
    for f in sorted({span.f for span in operations}):
        own = [span for span in operations if span.f == f]
        counts = Counter(span.type for span in own)
        took = sorted((span.end - span.call) / SECOND for span in own if span.type == "ok" and span.end is not None)
        by_f[f] = {
            **{kind: counts[kind] for kind in ("ok", "fail", "info")},
            "latency": {f"p{p}": percentile(took, p) for p in _PERCENTILES} if took else None,
        }
    ok = [span for span in operations if span.type == "ok" and span.end is not None]
    seconds = (max(span.end or 0 for span in ok) - min(span.call for span in operations)) / SECOND if ok else 0.0
    errors = Counter((span.error or "no completion").partition(":")[0] for span in operations if span.type != "ok")
    totals = Counter(span.type for span in operations)
    details = {
        "operations": len(operations),
        **{kind: totals[kind] for kind in ("ok", "fail", "info")},
        "rate": len(ok) / seconds if seconds else 0.0,
        "by_f": by_f,
        "ok_by_node": dict(sorted(Counter(span.node for span in ok if span.node).items())),
        "errors": dict(errors.most_common()),
    }
    counted = f"{totals['ok']} ok, {totals['fail']} failed, {totals['info']} unknown; {details['rate']:.0f} ok/s"
    lacking = _lacking(by_f)
    if not ok:
        return Verdict(CHECKER, "unknown", f"No operation succeeded: {counted}.", details)
    if lacking:
        return Verdict(CHECKER, "unknown", f"No {' and no '.join(lacking)} succeeded: {counted}.", details)
    return Verdict(CHECKER, "valid", f"{counted}.", details)


def _lacking(by_f: dict[str, Any]) -> list[str]:
    """The kinds of operation, reading and writing, of which none succeeded."""
    reads = sum(by_f[f]["ok"] for f in by_f if f in ("read", "get"))
    changes = sum(by_f[f]["ok"] for f in by_f if f not in ("read", "get"))
    return [name for name, count in (("read", reads), ("write", changes)) if not count]


def percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest-rank percentile of a sorted sequence that is not empty."""
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[rank - 1]
