"""Decide one key of any history, within a budget: in turn the searches of search.py, the cheap ones first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from raftbed.analysis.linearizability.budget import Budget, Limit, OutOfBudgetError
from raftbed.analysis.linearizability.operations import KeyHistory, Operation
from raftbed.analysis.linearizability.search import UNOBSERVED, Mode, Search, Stuck
from raftbed.model import Validity


@dataclass(frozen=True, slots=True)
class _Stage:
    """One search: its kind, the beam's width and depth, and its share of the time that is left."""

    mode: Mode
    share: float
    width: int = 0
    depth: int = 0


# Found by trial on the recorded histories: narrow beams answer "valid" in a moment, the relaxation "invalid".
_STAGES: Final = (
    _Stage("beam", 0.3, width=10, depth=50),
    _Stage("relaxed", 0.3),
    _Stage("beam", 0.5, width=30, depth=15),
    _Stage("beam", 0.5, width=100, depth=100),
    _Stage("beam", 0.5, width=1000, depth=1000),
    _Stage("exact", 1.0),
)

_EXPLANATION_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the exact search found out about one key.

    Attributes:
        validity: "valid", "invalid" or "unknown".
        method: which search decided.
        stuck: for invalid: where no order was left.
        phantoms: for invalid: observers of a value that nobody wrote.
        limit: for unknown: which limit was hit.
    """

    validity: Validity
    method: str
    stuck: Stuck | None = None
    phantoms: tuple[Operation, ...] = ()
    limit: Limit | None = None


def initial_value(model: str) -> Any:
    """What an object is before anything was done to it."""
    return "" if model == "kv-append" else None


def simplified(operations: Iterable[Operation]) -> list[Operation]:
    """The operations on a register with all values that nobody observes made one, and useless pending ones dropped."""
    kept = list(operations)
    while True:
        observed = {op.old for op in kept if op.kind in ("read", "cas")}
        fewer = [op for op in kept if not (op.pending and op.new not in observed)]
        if len(fewer) == len(kept):
            break
        kept = fewer
    return [op if op.kind == "read" or op.new in observed else op._replace(new=UNOBSERVED) for op in kept]


def simplified_strings(operations: Iterable[Operation]) -> list[Operation]:
    """The operations on a string without pending ones that no read shows, neither at its beginning nor inside."""
    kept = list(operations)
    shown = {op.old for op in kept if op.kind == "read"}
    return [
        op
        for op in kept
        if not op.pending
        or (op.kind == "append" and any(op.new in value for value in shown))
        or (op.kind == "write" and any(value.startswith(op.new) for value in shown))
    ]


def _phantoms(operations: list[Operation]) -> tuple[Operation, ...]:
    """Acknowledged observers of a register's value that nobody can have written when they returned."""
    written: dict[Any, int] = {None: -1}
    for op in operations:
        if op.kind != "read" and op.call < written.get(op.new, op.call + 1):
            written[op.new] = op.call
    return tuple(
        op
        for op in operations
        if op.kind in ("read", "cas") and not op.pending and written.get(op.old, op.end) >= op.end
    )


def decide(history: KeyHistory, model: str, budget: Budget) -> Outcome:
    """Decide whether the operations on one key can be ordered.

    Parameters:
        history: the operations.
        model: "register", "cas-register" or "kv-append".
        budget: time and memory.
    """
    operations = history.operations
    initial = initial_value(model)
    appending = model == "kv-append"
    if appending:
        operations = simplified_strings(operations)
    else:
        phantoms = _phantoms(operations)
        if phantoms:
            return Outcome("invalid", "search", phantoms=phantoms)
        operations = simplified(operations)
    try:
        return _search(operations, initial, budget, relax=not appending)
    except OutOfBudgetError as error:
        return Outcome("unknown", "search", limit=error.limit)
    except (MemoryError, RecursionError):
        return Outcome("unknown", "search", limit="memory")


def _search(operations: list[Operation], initial: Any, budget: Budget, *, relax: bool) -> Outcome:
    """Run the stages one after the other, each with its share of the time that is left."""
    for stage in _STAGES:
        if stage.mode == "relaxed" and not relax:
            continue
        part = budget.part(stage.share * budget.remaining()) if stage.share < 1 else budget
        search = Search(operations, initial, part, stage.mode, stage.width, stage.depth)
        try:
            found = search.run()
        except OutOfBudgetError as error:
            if part is budget or error.limit == "memory" or budget.remaining() == 0:
                raise
            continue
        if found and stage.mode != "relaxed":
            return Outcome("valid", stage.mode)
        if not found and (search.complete or stage.mode == "relaxed"):
            stuck = None if relax else _stuck_without_looking_ahead(operations, initial, budget)
            return Outcome("invalid", stage.mode, stuck=stuck or search.stuck)
    raise AssertionError("the exact search decides or runs out of its budget")


def _stuck_without_looking_ahead(operations: list[Operation], initial: Any, budget: Budget) -> Stuck | None:
    """Where a history that is known to be invalid shows it; None when that takes too long to find out."""
    try:
        search = Search(operations, initial, budget.part(_EXPLANATION_SECONDS), look_ahead=False)
        search.run()
    except (OutOfBudgetError, MemoryError, RecursionError):  # the verdict stands, whatever becomes of its explanation
        return None
    return search.stuck
