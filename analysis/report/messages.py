"""The message diagram of a simulated run: its last telling steps, one a row, as a drawing and in words.

Rows are steps in the order in which they happened, not moments: a diagram to scale would be empty for most of its
height. Heartbeats, and answers that say that one was heard, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from raftbed.analysis.report.view import View
from raftbed.model import SECOND
from raftbed.record import read_json_lines

_MOST_ROWS = 90
_BEFORE = SECOND // 2  # what led to a violation begins before its first operation
_ROW = 20
_TOP = 34
_LEFT = 70
_WIDTH = 960
_TEXT = 300  # for the words at the right
_ORDER = {"fault": 0, "client": 1, "arrive": 2, "node": 3, "send": 4}  # of one moment: first the cause, then the effect
_TOLD = {"role", "vote", "truncate", "commit", "durable", "boot", "snapshot"}


@dataclass(frozen=True, slots=True)
class Step:
    """One row.

    Attributes:
        time: nanoseconds.
        kind: "send", "arrive", "node", "client" or "fault".
        place: the node at which it happens; None for faults.
        text: in words.
        message: number of the message that leaves or arrives, or None.
        lost: the message that leaves never arrives.
    """

    time: int
    kind: str
    place: str | None
    text: str
    message: int | None = None
    lost: bool = False


def steps(view: View) -> list[Step]:
    """The last telling steps up to the end of the violation; none where no messages were recorded."""
    path = view.path / "messages.jsonl"
    if not path.is_file() or view.plan is None:
        return []
    found = _faults(view) + _clients(view)
    for node in view.plan.nodes:
        found += _node(view, node)
    found += _messages(read_json_lines(path))
    begin, end = _window(view, found)
    inside = sorted(
        (step for step in found if begin <= step.time <= end), key=lambda step: (step.time, _ORDER[step.kind])
    )
    return inside[-_MOST_ROWS:]


def _window(view: View, found: Sequence[Step]) -> tuple[int, int]:
    if view.witness is not None:
        operations = view.witness["operations"]
        ends = [op["return"] for op in operations if op.get("return") is not None]
        return min(op["call"] for op in operations) - _BEFORE, max(ends or [op["call"] for op in operations])
    return 0, max((step.time for step in found), default=0)


def _messages(records: Sequence[dict[str, Any]]) -> list[Step]:
    found = []
    for number, said in enumerate(records):
        if said["routine"]:
            continue
        text = f"{said['from']} {'answers' if said['answer'] else 'to'} {said['to']}: {said['text']}"
        lost = said["arrived"] is None
        found.append(Step(said["time"], "send", said["from"], f"{text} (lost)" if lost else text, number, lost))
        if not lost:
            found.append(Step(said["arrived"], "arrive", said["to"], "", number))
    return found


def _node(view: View, node: str) -> list[Step]:
    path = view.path / "nodes" / node / "trace.jsonl"
    if not path.is_file():
        return []
    return [
        Step(record["time"], "node", node, f"{node} {_told(record)}")
        for record in read_json_lines(path)
        if record["event"] in _TOLD
    ]


def _told(record: dict[str, Any]) -> str:
    event, term = record["event"], record.get("term")
    if event == "role":
        leader = f" of {record['leader']}" if record.get("leader") and record["role"] == "follower" else ""
        return f"is {record['role']}{leader} in term {term}"
    words = {
        "vote": f"has synced its vote for {record.get('candidate')} in term {term}",
        "truncate": f"cuts its log at {record.get('index')}",
        "commit": f"commits up to {record.get('index')}",
        "durable": f"has synced up to {record.get('index')}",
        "boot": f"starts with a log that ends at {record.get('last')}",
        "snapshot": f"has a snapshot up to {record.get('index')}",
    }
    return words[event]


def _clients(view: View) -> list[Step]:
    found = []
    for span in view.operations:
        what = f"client {span.process}: {span.f} {span.key}"
        argument = "" if span.argument is None else f" {span.argument}"
        found.append(Step(span.call, "client", span.node, f"{what}{argument} is asked"))
        if span.end is not None:
            value = f" → {span.value}" if span.f == "read" and span.type == "ok" else ""
            found.append(Step(span.end, "client", span.node, f"{what}{value}: {span.type}"))
    return found


def _faults(view: View) -> list[Step]:
    found = []
    for window in view.windows:
        name = f"{window.step.id} {window.step.kind} {window.step.shape}"
        if window.injected is not None:
            found.append(Step(window.injected, "fault", None, f"{name} strikes {' '.join(window.nodes)}"))
        if window.healed is not None:
            found.append(Step(window.healed, "fault", None, f"{name} is healed"))
    return found


def drawing(view: View, rows: Sequence[Step]) -> Markup | None:
    """The diagram; None without steps."""
    if not rows or view.plan is None:
        return None
    nodes = list(view.plan.nodes)
    gap = (_WIDTH - _LEFT - _TEXT) / len(nodes)
    x = {node: round(_LEFT + gap * (place + 0.5), 1) for place, node in enumerate(nodes)}
    bottom = _TOP + _ROW * len(rows)
    parts = [
        Markup(
            '<text class="label" x="{}" y="16" text-anchor="middle">{}</text>'
            '<line class="grid" x1="{}" x2="{}" y1="24" y2="{}"/>'
        ).format(x[node], node, x[node], x[node], bottom)
        for node in nodes
    ]
    leaves: dict[int, tuple[float, float]] = {}
    for number, step in enumerate(rows):
        y = _TOP + _ROW * number + _ROW / 2
        parts += _row(step, x, y, leaves)
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}" xmlns="http://www.w3.org/2000/svg">').format(
        _WIDTH, bottom + 8, "Messages between the nodes, step by step"
    )
    return head + Markup("").join(parts) + Markup("</svg>")


def _row(step: Step, x: dict[str, float], y: float, leaves: dict[int, tuple[float, float]]) -> list[Markup]:
    parts = [Markup('<text class="name" x="2" y="{}">{}</text>').format(y + 4, f"{step.time / SECOND:.6f}")]
    if step.text:
        parts.append(
            Markup('<text class="name" x="{}" y="{}">{}</text>').format(_WIDTH - _TEXT + 6, y + 4, step.text[:60])
        )
    if step.place is None or step.place not in x:
        band = '<rect class="fault" x="{}" y="{}" width="{}" height="{}"/>'
        parts.append(Markup(band).format(_LEFT, y - _ROW / 2, _WIDTH - _LEFT - _TEXT, _ROW))  # noqa: S704 - our own text
        return parts
    at = x[step.place]
    if step.kind == "arrive" and step.message in leaves:
        from_x, from_y = leaves[step.message]
        line = '<line class="message" x1="{}" y1="{}" x2="{}" y2="{}"/>'
        parts.append(Markup(line).format(from_x, from_y, at, y))  # noqa: S704 - our own text
    if step.kind == "send" and step.message is not None:
        leaves[step.message] = (at, y)
    mark = {"send": "send lost" if step.lost else "send"}.get(step.kind, step.kind)
    parts.append(
        Markup('<circle class="step {}" cx="{}" cy="{}" r="4"><title>{}</title></circle>').format(
            mark, at, y, step.text
        )
    )
    return parts
