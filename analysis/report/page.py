"""Lays out the page and writes it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from markupsafe import Markup

from raftbed.analysis.operations import Span
from raftbed.analysis.report import drawings, ledger, messages, plots
from raftbed.analysis.report.view import View, gather, script_safe
from raftbed.model import SECOND
from raftbed.private_files import write_private
from raftbed.store import RunDirectory

_HERE = Path(__file__).parent
_T = TypeVar("_T")
_TYPES = {"ok": 0, "fail": 1, "info": 2}
_MOST_BARS = 60_000  # of the timeline: more make a page that browsers are slow with
_SEARCHES = {
    "unique-values": "exactly: every value was written once",
    "beam": "by a search that found an order",
    "relaxed": "by a relaxation that allows more orders, and still has none",
    "exact": "by a search through all orders",
    "search": "not, by a search",
}


def write_report(run: RunDirectory) -> Path:
    """Write report.html, private, whole or not at all; returns its path.

    Raises:
        StoreError: it cannot be written.
    """
    write_private(run.report_path, render(gather(run)).encode())
    return run.report_path


def render(view: View) -> str:
    """The page. Whatever cannot be drawn is replaced by a sentence."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = seconds
    environment.filters["compact_json"] = lambda value: json.dumps(value, indent=1, ensure_ascii=False, default=str)
    environment.filters["script_safe"] = _script_safe_markup
    environment.filters["method"] = lambda name: _SEARCHES.get(name, name)
    figures, failures = plots.figures(view)
    witness = view.witness
    drawn = _attempt(
        "violation", lambda: drawings.witness_drawing(witness, view.windows) if witness else None, failures
    )
    roles = _attempt("leadership", lambda: drawings.leadership_drawing(view), failures)
    steps = _attempt("the messages", lambda: messages.steps(view), failures) or []
    diagram = _attempt("the messages", lambda: messages.drawing(view, steps), failures)
    return environment.get_template("report.html").render(
        view=view,
        nonce=secrets.token_urlsafe(16),  # should escaping ever fail, a script that got in does not know it
        witness_drawing=drawn,
        roles_drawing=roles,
        message_drawing=diagram,
        message_steps=[step for step in steps if step.text],
        ledger=_attempt("the fault ledger", lambda: ledger.rows(view), failures) or [],
        figures=figures,
        failures=failures,
        timeline=timeline(view),
        style=_own_file("report.css"),
        script=_own_file("report.js"),
        plotly=_plotly_source() if figures else "",
    )


def timeline(view: View) -> dict[str, Any]:
    """Operations and faults as the script draws them: numbers in rows, texts once."""
    lanes = view.plan.concurrency if view.plan else 1 + max((s.process for s in view.operations), default=0)
    marked = {(op["process"], op["call"]) for op in (view.witness or {}).get("operations", [])}
    drawn = _fair_sample(view.operations, marked)
    return {
        "begin": view.begin / SECOND,
        "end": view.end / SECOND,
        "lanes": lanes,
        "nodes": list(view.plan.nodes) if view.plan else [],
        "operations": [
            [
                span.process % lanes,
                round(span.call / SECOND, 6),
                round(span.end / SECOND, 6) if span.end is not None else None,
                _TYPES[span.type],
                operation_text(span.f, span.key, span.argument, span.value, span.type),
                span.process,
                span.node or "",
                (span.error or "")[:200],
                int((span.process, span.call) in marked),
            ]
            for span in drawn
        ],
        "omitted": len(view.operations) - len(drawn),
        "faults": [
            {
                "label": f"{window.step.id} {window.step.kind} {window.step.shape}",
                "kind": window.step.kind,
                "begin": window.injected / SECOND,
                "end": window.healed / SECOND if window.healed is not None else None,
                "nodes": affected(window.detail, window.nodes),
            }
            for window in view.windows
            if window.injected is not None
        ],
    }


def _fair_sample(operations: list[Span], marked: set[tuple[int, int]]) -> list[Span]:
    """All operations; of very many, those of a witness and an even sample, half of it of those that did not succeed."""
    if len(operations) <= _MOST_BARS:
        return operations
    telling = [place for place, span in enumerate(operations) if span.type != "ok"]
    chosen = set(_even(telling, _MOST_BARS // 2))
    chosen.update(_even(range(len(operations)), _MOST_BARS - len(chosen)))
    chosen.update(place for place, span in enumerate(operations) if (span.process, span.call) in marked)
    return [operations[place] for place in sorted(chosen)]


def _even(places: Sequence[int], most: int) -> list[int]:
    step = max(1.0, len(places) / most)
    return [places[int(number * step)] for number in range(int(len(places) / step))]


def affected(detail: dict[str, Any], nodes: tuple[str, ...]) -> list[str]:
    """The nodes to mark in the timeline: those that drop packets or are dropped, or were killed."""
    drops = detail.get("injected", {}).get("drops")
    if not drops:
        return list(nodes)
    # In a partition the smaller side is what a reader looks for: those cut off from most.
    cut = {node: len(drops.get(node, ())) for node in nodes}
    dropped = {node: sum(node in sources for sources in drops.values()) for node in nodes}
    most = max(cut[node] + dropped[node] for node in nodes)
    return [node for node in nodes if cut[node] + dropped[node] == most]


def operation_text(f: str, key: Any, argument: Any, value: Any, type_: str) -> str:
    """An operation in a few characters: "read r1 → 7", "cas r1 3 ⇒ 7"."""
    if f in ("read", "get"):
        return f"{f} {compact(key)} → {compact(value) if type_ == 'ok' else '?'}"
    if f == "cas" and isinstance(argument, list) and len(argument) == 2:
        return f"cas {compact(key)} {compact(argument[0])} ⇒ {compact(argument[1])}"
    return f"{f} {compact(key)} {compact(argument)}"


def compact(value: Any) -> str:
    """A value as short text."""
    text = value if isinstance(value, str) else script_safe(value).replace("\\u003c", "<").replace("\\u003e", ">")
    return text if len(text) <= 60 else f"{text[:57]}..."


def seconds(time: int | None) -> str:
    """Nanoseconds of the run as seconds, for a table."""
    return "–" if time is None else f"{time / SECOND:.3f}"


def _attempt(what: str, draw: Callable[[], _T], failures: list[str]) -> _T | None:
    try:
        return draw()
    except Exception as error:  # a picture that fails must not take the page along
        failures.append(f"The drawing of {what} could not be made: {type(error).__name__}: {error}")
        return None


def _script_safe_markup(value: Any) -> Markup:
    return Markup(script_safe(value))  # noqa: S704 - script_safe leaves nothing that could end a script element


def _own_file(name: str) -> Markup:
    return Markup((_HERE / name).read_text(encoding="utf-8"))  # noqa: S704 - a file of this package


def _plotly_source() -> Markup:
    import plotly

    source = (Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return Markup(source.replace("</script", "<\\/script"))  # noqa: S704 - plotly's own script
