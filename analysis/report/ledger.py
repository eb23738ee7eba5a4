"""The fault ledger as rows of a table: what was planned, on whom it acted, how it went, and when the cluster served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raftbed.analysis.operations import Window
from raftbed.analysis.report.view import View
from raftbed.model import SECOND


@dataclass(frozen=True, slots=True)
class Row:
    """One planned fault.

    Attributes:
        window: what became of it.
        who: on whom it acted, in the notation of docs/faults.md.
        how: mechanism, and the leader where it aimed at one.
        begin, end: as planned, in nanoseconds of the run.
        served: seconds from its heal to the first success after it; None when there was none, or it is not known.
        operations: that were under way meanwhile; None when that was not checked.
    """

    window: Window
    who: str
    how: str
    begin: int
    end: int
    served: float | None
    operations: int | None


def rows(view: View) -> list[Row]:
    """A row for each planned fault, in the order of the schedule."""
    served = {row["fault"]: row["seconds"] for row in view.details("availability").get("recoveries", ())}
    met = {row["fault"]: row["operations"] for row in view.details("fault-coverage").get("faults", ())}
    return [
        Row(
            window=window,
            who=who(window),
            how=_how(window),
            begin=view.begin + int(window.step.at * SECOND),
            end=view.begin + int(window.step.until * SECOND),
            served=served.get(window.step.id),
            operations=met.get(window.step.id),
        )
        for window in view.windows
    ]


def who(window: Window) -> str:
    """On whom a fault acted: "n1 ┊ n2 n3" (cut in both directions), "n1 drops n2 n3" (in one), "n1 n2 killed"."""
    if not window.nodes:
        return ""
    drops = window.detail.get("injected", {}).get("drops")
    if isinstance(drops, Mapping):
        return _cut(drops)
    return f"{' '.join(window.nodes)} killed" if window.step.kind == "kill" else " ".join(window.nodes)


def _cut(drops: Mapping[str, Sequence[str]]) -> str:
    sides: dict[frozenset[str], list[str]] = {}  # those that drop the same nodes stand on one side
    for node in sorted(drops):
        sides.setdefault(frozenset(drops[node]), []).append(node)
    everyone = {node for nodes in sides.values() for node in nodes}
    if len(sides) > 1 and all(sources == everyone - set(nodes) for sources, nodes in sides.items()):
        return " ┊ ".join(" ".join(nodes) for nodes in sides.values())
    return ", ".join(
        f"{' '.join(nodes)} {'drop' if len(nodes) > 1 else 'drops'} {' '.join(sorted(sources))}"
        for sources, nodes in sides.items()
    )


def _how(window: Window) -> str:
    injected: Mapping[str, Any] = window.detail.get("injected", {})
    parts = [str(injected.get("mechanism") or injected.get("signal") or "evidence")]
    if "leader" in injected:
        leader = injected["leader"]
        parts.append(f"leader {leader} in term {injected.get('term')}" if leader else "no leader was known")
    return ", ".join(parts)
