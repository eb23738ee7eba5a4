"""Operations and fault windows of a run, put together from its events, for the checks and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary

from raftbed.model import NEMESIS, FaultEvent, FaultStep, Op, often_made
from raftbed.store import RunDirectory

_SPANS: WeakKeyDictionary[RunDirectory, tuple[Sequence[Op], list[Span]]] = WeakKeyDictionary()


@often_made
class Span:
    """One operation of a client, from invocation to completion.

    Attributes:
        process: who.
        f, key, argument: what was asked.
        value: what was recorded at its end.
        call: nanoseconds.
        end: nanoseconds; None while nothing is known of its end.
        type: "ok", "fail", or "info", which is also what an operation without a completion is.
        error: the reason of a fail or info.
        node: who answered, or else who was asked.
        asked: who was asked first.
    """

    process: int
    f: str
    key: Any
    argument: Any
    value: Any
    call: int
    end: int | None
    type: Literal["ok", "fail", "info"]
    error: str | None
    node: str | None
    asked: str | None = None


def spans(history: Sequence[Op]) -> list[Span]:
    """The clients' operations in the order of their invocations. Completions that begin nothing are passed over."""
    open_: dict[int | str, tuple[int, Op]] = {}
    found: list[Span | None] = []
    for op in history:
        if op.process == NEMESIS or isinstance(op.process, str):
            continue
        if op.type == "invoke":
            open_[op.process] = (len(found), op)
            found.append(_span(op, None))
        elif op.process in open_:
            place, call = open_.pop(op.process)
            found[place] = _span(call, op)
    return [span for span in found if span is not None]


def spans_of(run: RunDirectory) -> list[Span]:
    """The clients' operations of a run; made once for all who ask, as long as its history is the very same object."""
    history = run.history()
    kept = _SPANS.get(run)
    if kept is None or kept[0] is not history:
        kept = _SPANS[run] = (history, spans(history))
    return kept[1]


def _span(call: Op, end: Op | None) -> Span:
    assert isinstance(call.process, int)
    type_ = end.type if end is not None and end.type != "invoke" else "info"
    home = call.node
    if end is None:
        return Span(call.process, call.f, call.key, call.value, None, call.time, None, type_, None, home, home)
    node = end.node or home
    return Span(
        call.process, call.f, call.key, call.value, end.value, call.time, end.time, type_, end.error, node, home
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Window:
    """What became of one planned fault.

    Attributes:
        step: as planned.
        nodes: that it acted on; empty when it was not injected.
        injected, proved, healed: nanoseconds; None when that did not happen.
        failures: what went wrong, in words.
        detail: of the injection and its proof: mechanism, leader, evidence.
    """

    step: FaultStep
    nodes: tuple[str, ...] = ()
    injected: int | None = None
    proved: int | None = None
    healed: int | None = None
    failures: tuple[str, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)


def windows(schedule: Sequence[FaultStep], ledger: Sequence[FaultEvent]) -> list[Window]:
    """One window for each planned fault, in the order of the schedule."""
    found = []
    for step in schedule:
        events = [event for event in ledger if event.fault == step.id]
        times: dict[str, int] = {}
        detail: dict[str, Any] = {}
        failures = []
        nodes: tuple[str, ...] = ()
        for event in events:
            if event.state == "failed":
                failures.append(str(event.detail.get("error", "no reason given")))
                continue
            times.setdefault(event.state, event.time)
            nodes = nodes or event.nodes
            detail.update({event.state: dict(event.detail)})
        found.append(
            Window(
                step,
                nodes,
                times.get("injected"),
                times.get("proved"),
                times.get("healed"),
                tuple(failures),
                detail,
            )
        )
    return found
