"""Drawings that need no script: the window of a violation, and who led when. SVG, as text with everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup, escape

from raftbed.analysis.operations import Window
from raftbed.analysis.report.view import View
from raftbed.model import SECOND
from raftbed.store import StatusSample

_WIDTH = 960
_LABEL = 92
_LANE = 44
_TOP = 26
_STRIP = 20
_NAME_WIDTH = 26
_MERGE_SAMPLES_WITHIN = 2 * SECOND


@dataclass(frozen=True, slots=True)
class _Scale:
    """From nanoseconds to pixels."""

    begin: int
    end: int

    def x(self, time: int) -> float:
        span = max(1, self.end - self.begin)
        inside = min(max(time, self.begin), self.end)
        return round(_LABEL + (inside - self.begin) / span * (_WIDTH - _LABEL - 8), 1)

    def ticks(self) -> list[int]:
        """Round moments, about eight of them."""
        span = max(1, self.end - self.begin)
        step = 1
        while span / step > 10:
            step = step * 5 if str(step)[0] == "1" or str(step)[0] == "2" else step * 2
            step = int(float(f"{step:.0e}"))
        first = -(-self.begin // step) * step
        return list(range(first, self.end + 1, step))


def _svg(height: float, title: str, parts: Sequence[Markup]) -> Markup:
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">').format(
        _WIDTH, round(height), title
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def _axis(scale: _Scale, height: float) -> list[Markup]:
    parts = []
    for tick in scale.ticks():
        x = scale.x(tick)
        parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(x, x, _TOP - 6, height))
        label = f"{tick / SECOND:.9f}".rstrip("0").rstrip(".")
        parts.append(Markup('<text class="tick" x="{}" y="{}">{} s</text>').format(x, _TOP - 12, label or "0"))
    return parts


def _visible(scale: _Scale, windows: Sequence[Window]) -> list[tuple[Window, float, float]]:
    """The faults that were in force within the picture, with the pixels from which and to which."""
    found = []
    for window in windows:
        healed = window.healed if window.healed is not None else scale.end
        if window.injected is not None and healed >= scale.begin and window.injected <= scale.end:
            found.append((window, scale.x(window.injected), scale.x(healed)))
    return found


def _title(window: Window) -> str:
    return f"{window.step.id} {window.step.kind} {window.step.shape}"


def _shades(scale: _Scale, windows: Sequence[Window], height: float) -> list[Markup]:
    return [
        Markup('<rect class="fault {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
            window.step.kind, x, _TOP - 6, max(1.0, end - x), height - _TOP + 6, _title(window)
        )
        for window, x, end in _visible(scale, windows)
    ]


def _strips(scale: _Scale, windows: Sequence[Window], top: float) -> list[Markup]:
    """A lane for each fault, with its name."""
    parts = []
    for lane, (window, x, end) in enumerate(_visible(scale, windows)):
        y = top + lane * _STRIP
        anchor, at = ("end", end - 4) if x > _WIDTH * 0.7 else ("start", x + 4)
        parts.append(
            Markup('<rect class="strip {}" x="{}" y="{}" width="{}" height="{}"/>').format(
                window.step.kind, x, y, max(1.0, end - x), _STRIP - 4
            )
        )
        parts.append(
            Markup('<text class="name" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                at, y + 12, anchor, _title(window)
            )
        )
    return parts


def _names(scale: _Scale, windows: Sequence[Window], y: float) -> list[Markup]:
    """The ids of the faults at their beginnings; one that would cover its neighbour's stands below it."""
    parts = []
    free = [0.0, 0.0]
    for window, x, _ in sorted(_visible(scale, windows), key=lambda found: found[1]):
        row = 0 if x >= free[0] else 1
        free[row] = x + _NAME_WIDTH
        parts.append(Markup('<text class="name" x="{}" y="{}">{}</text>').format(x, y + 11 * row, window.step.id))
    return parts


def witness_drawing(witness: dict[str, Any], windows: Sequence[Window]) -> Markup:
    """The operations of a witness, one lane a client, from invocation to completion; unknown ones are open-ended."""
    operations = sorted(witness["operations"], key=lambda op: op["call"])
    known = [op["call"] for op in operations] + [op["return"] for op in operations if op.get("return") is not None]
    margin = max(1000, (max(known) - min(known)) // 12)
    scale = _Scale(max(0, min(known) - margin), max(known) + margin)
    clients = list(dict.fromkeys(op["process"] for op in operations))
    strips = _strips(scale, windows, _TOP + _LANE * len(clients) + 8)
    height = _TOP + _LANE * len(clients) + 8 + _STRIP * (len(strips) // 2)
    parts = _shades(scale, windows, height) + _axis(scale, height) + strips
    for lane, process in enumerate(clients):
        y = _TOP + lane * _LANE
        parts.append(Markup('<text class="lane" x="4" y="{}">client {}</text>').format(y + _LANE / 2 + 4, process))
        for op in operations:
            if op["process"] == process:
                parts += _bar(scale, op, y)
    return _svg(height, "The operations that prove the violation, over time", parts)


def _bar(scale: _Scale, op: dict[str, Any], y: float) -> list[Markup]:
    open_ended = op.get("return") is None or op["type"] == "info"
    x = scale.x(op["call"])
    end = scale.x(scale.end if open_ended else op["return"])
    width = max(3.0, end - x)
    kind = escape(op["type"])
    where = f" at {op['node']}" if op.get("node") else ""
    title = f"client {op['process']}: {op['text']}{where} ({op['type']}): {op.get('why', '')}"
    box = Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="18" rx="3"><title>{}</title></rect>').format(
        kind, x, y + 20, width, title
    )
    # The label stands above its bar, and ends where the picture ends.
    anchor, at = ("end", end) if x > _WIDTH * 0.7 else ("start", x)
    label = Markup('<text class="label" x="{}" y="{}" text-anchor="{}">{}{}</text>').format(
        at, y + 15, anchor, op["text"], " …" if open_ended else ""
    )
    return [box, label]


def leadership_drawing(view: View) -> Markup | None:
    """What each node took itself for, over time, with the term in which it led; None without samples."""
    nodes = list(view.plan.nodes) if view.plan else sorted({sample.node for sample in view.status})
    if not view.status or not nodes:
        return None
    scale = _Scale(view.begin, max(view.end, view.status[-1].time))
    lane = 24
    height = _TOP + lane * len(nodes) + 6
    parts = _shades(scale, view.windows, height) + _axis(scale, height) + _names(scale, view.windows, height + 11)
    for number, node in enumerate(nodes):
        y = _TOP + number * lane
        parts.append(Markup('<text class="lane" x="4" y="{}">{}</text>').format(y + 15, node))
        samples = [sample for sample in view.status if sample.node == node and sample.time >= scale.begin]
        parts += _roles(scale, samples, y)
    return _svg(height + 24, "Role of each node over time", parts)


def _roles(scale: _Scale, samples: Sequence[StatusSample], y: float) -> list[Markup]:
    parts = []
    runs = [list(group) for _, group in groupby(samples, key=lambda s: (s.reachable, s.role, s.term))]
    for number, run in enumerate(runs):
        following = runs[number + 1][0].time if number + 1 < len(runs) else run[-1].time
        end = min(following, run[-1].time + _MERGE_SAMPLES_WITHIN)
        first = run[0]
        role = (first.role or "unknown") if first.reachable else "down"
        x = scale.x(first.time)
        width = max(1.5, scale.x(end) - x)
        thick = 14 if role == "leader" else 6
        title = f"{first.node}: {role}" + (f" in term {first.term}" if first.reachable else "")
        parts.append(
            Markup('<rect class="role {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                role, x, y + 10 - thick / 2, width, thick, title
            )
        )
        if role == "leader" and width > 26:
            parts.append(Markup('<text class="term" x="{}" y="{}">term {}</text>').format(x + 4, y + 14, first.term))
    return parts
