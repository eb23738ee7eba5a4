"""The plotly figures: latency of every operation, and throughput, with the faults shaded in."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

from raftbed.analysis.operations import Span
from raftbed.analysis.report.view import View
from raftbed.model import SECOND

COLOURS = {"ok": "#2f7f86", "fail": "#c77d1e", "info": "#b3365b"}
_NAMES = {"ok": "ok", "fail": "failed", "info": "unknown"}
_SYMBOLS = {"ok": "circle", "fail": "x-thin-open", "info": "diamond-open"}
_MOST_POINTS = 4000
_BIN = 0.5  # seconds


def figures(view: View) -> tuple[list[dict[str, Any]], list[str]]:
    """The figures that could be made, as plotly takes them, and a sentence for each that could not."""
    made: list[dict[str, Any]] = []
    failures: list[str] = []
    makers: dict[str, Callable[[View], dict[str, Any]]] = {"throughput": throughput, "latency": latency}
    for name, make in makers.items():
        if not view.operations:
            continue
        try:
            made.append({"id": name, **make(view)})
        except Exception as error:  # a picture that fails must not take the page along
            failures.append(f"The plot of {name} could not be made: {type(error).__name__}: {error}")
    return made, failures


def latency(view: View) -> dict[str, Any]:
    """Time from invocation to completion of each operation, on a logarithmic scale."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for type_ in ("ok", "fail", "info"):
        own = [span for span in view.operations if span.type == type_ and span.end is not None]
        own = _thinned(own)
        figure.add_trace(
            go.Scatter(
                x=[round(span.call / SECOND, 4) for span in own],
                y=[max(0.01, round(((span.end or span.call) - span.call) / 1e6, 3)) for span in own],
                mode="markers",
                name=_NAMES[type_],
                marker={
                    "symbol": _SYMBOLS[type_],
                    "size": 4 if type_ == "ok" else 7,
                    "color": COLOURS[type_],
                    "opacity": 0.55 if type_ == "ok" else 0.9,
                },
                hovertemplate="%{y:.1f} ms at %{x:.3f} s<extra>" + _NAMES[type_] + "</extra>",
            )
        )
    return _finished(figure, view, "milliseconds", log=True)


def throughput(view: View) -> dict[str, Any]:
    """Operations that ended per second, by how they ended."""
    import pandas as pd
    import plotly.graph_objects as go

    begin = view.begin  # of the clients, so that the first bin is a whole one
    frame = pd.DataFrame(
        {
            "bin": [int(((span.end or span.call) - begin) / SECOND / _BIN) for span in view.operations],
            "type": [span.type for span in view.operations],
        }
    )
    table = frame.groupby(["bin", "type"]).size().unstack(fill_value=0)
    table = table.reindex(range(int(table.index.min()), int(table.index.max()) + 1), fill_value=0)
    figure = go.Figure()
    for type_ in ("ok", "fail", "info"):
        if type_ in table:
            figure.add_trace(
                go.Scatter(
                    x=[round(begin / SECOND + (number + 0.5) * _BIN, 3) for number in table.index],
                    y=[round(float(count) / _BIN, 1) for count in table[type_]],
                    mode="lines",
                    name=_NAMES[type_],
                    line={"color": COLOURS[type_], "dash": "solid" if type_ == "ok" else "dot", "shape": "hvh"},
                    hovertemplate="%{y:.0f}/s<extra>" + _NAMES[type_] + "</extra>",
                )
            )
    return _finished(figure, view, "operations per second")


def _thinned(own: list[Span]) -> list[Span]:
    if len(own) <= _MOST_POINTS:
        return own
    step = len(own) / _MOST_POINTS
    chosen = {int(number * step) for number in range(_MOST_POINTS)}
    slowest = sorted(range(len(own)), key=lambda place: (own[place].end or 0) - own[place].call)[-200:]
    return [own[place] for place in sorted(chosen | set(slowest))]


def _finished(figure: Any, view: View, unit: str, *, log: bool = False) -> dict[str, Any]:
    for window in view.windows:
        if window.injected is None:
            continue
        healed = window.healed if window.healed is not None else view.end
        figure.add_shape(
            type="rect",
            xref="x",
            yref="paper",
            x0=window.injected / SECOND,
            x1=healed / SECOND,
            y0=0,
            y1=1,
            fillcolor="#8d7bb5" if window.step.kind == "partition" else "#b56a6a",
            opacity=0.16,
            line_width=0,
            layer="below",
        )
        figure.add_annotation(
            x=window.injected / SECOND,
            xref="x",
            y=1,
            yref="paper",
            text=html.escape(window.step.id),
            showarrow=False,
            xanchor="left",
            yanchor="top",
            font={"size": 10},
            opacity=0.7,
        )
    figure.update_layout(
        template="none",
        height=300,
        margin={"l": 62, "r": 12, "t": 10, "b": 42},
        # All plots show the same stretch of time, so that they can be read one below the other.
        xaxis={
            "title": {"text": "seconds since the start of the run"},
            "zeroline": False,
            "range": [view.begin / SECOND, view.end / SECOND],
        },
        yaxis={"title": {"text": unit}, "type": "log" if log else "linear", "zeroline": False, "rangemode": "tozero"},
        legend={"orientation": "h", "y": 1.12, "x": 0},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hovermode="closest",
    )
    if log:
        figure.update_layout(yaxis_dtick=1)  # a line per decade
    document: dict[str, Any] = figure.to_plotly_json()
    return {"data": document["data"], "layout": document["layout"]}
