"""The linearizability check: from a history's events to a verdict over all its keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from raftbed.analysis.linearizability.budget import Budget, Limit
from raftbed.analysis.linearizability.exact import Outcome, decide
from raftbed.analysis.linearizability.explain import explain
from raftbed.analysis.linearizability.explain_search import stale_witness, stuck_witness
from raftbed.analysis.linearizability.operations import MODELS, KeyHistory, Operation, infer_model, split
from raftbed.analysis.linearizability.unique import Analysis, analyse
from raftbed.analysis.linearizability.witness import Witness, phantom_witness, record, show
from raftbed.errors import UsageError
from raftbed.model import INVALID, UNKNOWN, VALID, Op, Validity, Verdict, worst

CHECKER: Final = "linearizable"
"""Name of this check."""

_UNIQUE_VALUES: Final = "unique-values"
_NOT_EXPLAINED: Final = (
    "No order of the operations explains their results. Which of them contradict each other was not found out within "
    "the limits."
)

Result = dict[str, Any]
"""What was found about one key: validity, operations (how many), summary, method; for invalid ones also witness."""


Event = Literal["started", "searching", "decided", "explained"]


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is to check.

    Attributes:
        keys: number of keys.
        acknowledged: number of operations that ended ok.
        observed: number of those that observed a value.
    """

    keys: int = 0
    acknowledged: int = 0
    observed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """What a check tells while it works.

    Attributes:
        event: "started" (the history is understood), "searching" (a key needs the exact search, which begins now),
            "decided" (a key has a result; an invalid one without a witness), "explained" (now with one).
        counts: how much there is to check.
        model: name of the model.
        key: the key, as text.
        result: what was found about it.
    """

    event: Event
    counts: Counts
    model: str
    key: str = ""
    result: Result | None = None


def check(
    ops: Sequence[Op],
    model: str | None = None,
    *,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Verdict:
    """Whether a history is linearizable: each key on its own, which is enough (Herlihy and Wing 1990, locality).

    Parameters:
        ops: the history's events, in order.
        model: "register", "cas-register" or "kv-append"; None infers it from the operations' names.
        time_limit: seconds for all of it; None for no limit.
        memory_limit: bytes of resident memory of this process; None for no limit.
        progress: called when the search for a key begins, when a key is decided, and when a violation is explained.

    Returns:
        The verdict; its details are described in docs/linearizability.md.

    Raises:
        HistoryError: the history is malformed, or the model cannot be told from it.
        UsageError: there is no such model.
    """
    if model is not None and model not in MODELS:
        raise UsageError(f"There is no model {model!r}.", remedy=f"The models are {', '.join(MODELS)}.")
    chosen = model or infer_model(ops)
    budget = Budget(time_limit, memory_limit)
    histories = split(ops, chosen) if chosen is not None else []
    names = key_names([history.key for history in histories])
    counts = Counts(
        len(histories),
        sum(history.acknowledged for history in histories),
        sum(history.observed for history in histories),
    )
    limits: dict[str, Any] = {"time": time_limit, "memory": memory_limit, "hit": None, "key": None}
    results: dict[str, Result] = {}

    def tell(event: Event, name: str = "", result: Result | None = None) -> None:
        if result is not None:
            results[name] = result
            if result["validity"] == UNKNOWN and limits["hit"] is None:
                limits.update(hit=result["limit"], key=name)
        if progress is not None:
            progress(Progress(event, counts, str(chosen), name, result))

    tell("started")
    writers = _WritersByValue(histories)
    searched: list[tuple[str, KeyHistory]] = []
    wrong: list[tuple[str, KeyHistory, Analysis]] = []
    for name, history in zip(names, histories, strict=True):
        analysis = None if chosen == "kv-append" else analyse(history)
        if analysis is None or analysis.verdict == "not-unique":
            searched.append((name, history))
            continue
        tell("decided", name, _decided(analysis.verdict, history, _UNIQUE_VALUES))
        if analysis.verdict == INVALID:
            wrong.append((name, history, analysis))
    # Whatever an explanation may come to, of time or memory, it takes no verdict with it: all are told by then.
    for name, history, analysis in wrong:
        tell(
            "explained",
            name,
            _explained(explain(history, analysis, writers.elsewhere(history)), history, _UNIQUE_VALUES),
        )
    wrong.clear()
    searched.sort(key=lambda entry: len(entry[1].operations))
    for number, (name, history) in enumerate(searched):
        tell("searching", name)
        outcome = decide(history, str(chosen), budget.part(budget.remaining() / (len(searched) - number)))
        if outcome.validity == UNKNOWN:
            tell("decided", name, stopped(outcome.limit or "time", history))
            continue
        tell("decided", name, _decided(outcome.validity, history, outcome.method))
        if outcome.validity == INVALID:
            tell("explained", name, _explained(_search_witness(outcome, history, writers), history, outcome.method))
    return combine(chosen, results, counts=counts, limits=limits)


def key_names(keys: Sequence[Any]) -> list[str]:
    """A text for each key, no two alike: strings as they are, other values as JSON."""
    taken = {key for key in keys if isinstance(key, str)}
    names: list[str] = []
    for key in keys:
        name = key if isinstance(key, str) else json.dumps(key, sort_keys=True)
        while not isinstance(key, str) and name in taken:
            name += " (not a string)"
        taken.add(name)
        names.append(name)
    return names


def combine(model: str | None, results: Mapping[str, Result], *, counts: Counts, limits: Mapping[str, Any]) -> Verdict:
    """The verdict over all keys.

    Parameters:
        model: its name; None when there was nothing to infer it from.
        results: per key; keys that a limit kept from being decided may be missing.
        counts: how much there was to check.
        limits: as they go into the details; "hit" is set when a limit was hit.
    """
    order = sorted(results.items(), key=lambda entry: -("valid", "unknown", "invalid").index(entry[1]["validity"]))
    witnesses = [(name, result["witness"]) for name, result in order if result.get("witness")]
    first = min(witnesses, key=lambda entry: _witness_rank(entry[1]), default=None)
    shown = ("validity", "operations", "summary", "method")
    details = {
        "model": model,
        "keys": {name: {field: result[field] for field in shown} for name, result in order},
        "witness": None if first is None else {"key": first[0], **first[1]},
        "limits": dict(limits),
    }
    validity, summary = _summary(order, details, counts)
    return Verdict(CHECKER, validity, summary, details)


def _witness_rank(witness: Mapping[str, Any]) -> tuple[int, int]:
    operations = witness["operations"]
    return len(operations), max((op["index"] for op in operations), default=0)


def _summary(order: Sequence[tuple[str, Result]], details: Mapping[str, Any], counts: Counts) -> tuple[Validity, str]:
    validity: Validity = worst([result["validity"] for _name, result in order])
    keys = "1 key" if counts.keys == 1 else f"{counts.keys} keys"
    limit = details["limits"]["hit"]
    if validity == INVALID:
        wrong = sum(result["validity"] == INVALID for _name, result in order)
        where = f"On {wrong} of {keys} the" if counts.keys > 1 else "The"
        witness = details["witness"]
        sentence = f" Key {show(witness['key'])}: {witness['sentence']}" if witness else ""
        return INVALID, f"{where} operations cannot be put in any order that explains their results.{sentence}"
    if limit is not None and len(order) < counts.keys + (not counts.keys):
        undecided = f"{counts.keys - len(order)} of {keys} are not decided" if counts.keys else "Nothing is decided"
        return UNKNOWN, f"{undecided}: the check was stopped at its {limit} limit. A higher limit may decide it."
    if not counts.acknowledged:
        return UNKNOWN, "Nothing to check: no operation succeeded."
    if not counts.observed:
        return UNKNOWN, "Nothing to check: no read succeeded, so nothing that was written was ever observed."
    if validity == UNKNOWN:
        open_keys = [(name, result) for name, result in order if result["validity"] == UNKNOWN]
        name, result = open_keys[0]
        more = f" (and {len(open_keys) - 1} more)" if len(open_keys) > 1 else ""
        return UNKNOWN, f"Key {show(name)}{more}: {result['summary']}"
    summary = f"All {counts.acknowledged} acknowledged operations on {keys} can be put in an order that explains them."
    if not any(result["reads"] for _name, result in order):
        summary += " No read succeeded: values were observed by compare-and-sets alone."
    return VALID, summary


def _decided(validity: Validity, history: KeyHistory, method: str) -> Result:
    """What is known of a key before a violation is explained."""
    reads = sum(operation.invocation.f != "cas" for operation in history.operations if operation.kind == "read")
    return {
        "validity": validity,
        "operations": len(history.operations) + len(history.failed),
        "reads": reads,
        "summary": "Linearizable." if validity == VALID else _NOT_EXPLAINED,
        "method": method,
    }


def _explained(witness: Witness, history: KeyHistory, method: str) -> Result:
    shown = {
        "sentence": witness.sentence,
        "operations": [record(operation, why) for operation, why in witness.operations],
        "left_out": witness.left_out,
    }
    return {**_decided(INVALID, history, method), "summary": witness.sentence, "witness": shown}


class _WritersByValue:
    """Who wrote a value to which key. The index is made when it is first asked for: only violations need it."""

    def __init__(self, histories: Sequence[KeyHistory]) -> None:
        self._histories = histories
        self._index: dict[Any, list[tuple[KeyHistory, Operation]]] | None = None

    def elsewhere(self, history: KeyHistory) -> Callable[[Any], tuple[Any, Operation] | None]:
        """A function that finds (key, operation) that wrote a value to a key other than this one."""

        def find(value: Any) -> tuple[Any, Operation] | None:
            if self._index is None:
                self._index = self._made()
            return next(
                ((other.key, operation) for other, operation in self._index.get(value, ()) if other is not history),
                None,
            )

        return find

    def _made(self) -> dict[Any, list[tuple[KeyHistory, Operation]]]:
        index: dict[Any, list[tuple[KeyHistory, Operation]]] = {}
        for history in self._histories:
            for operation in history.operations:
                if operation.kind != "read":
                    found = index.setdefault(operation.new, [])
                    # Two of different keys are enough: at least one is of another key than the one that asks.
                    if not found or (len(found) == 1 and found[0][0] is not history):
                        found.append((history, operation))
        return index


def stopped(limit: Limit, history: KeyHistory | None = None) -> Result:
    """The result of a search that came to a limit."""
    count = 0 if history is None else len(history.operations)
    of_them = f" of {count} operations" if history is not None else ""
    summary = f"Not decided: the search for an order{of_them} reached its {limit} limit. A higher limit may decide it."
    return {
        "validity": UNKNOWN,
        "operations": count,
        "reads": 0,
        "summary": summary,
        "method": "search",
        "limit": limit,
    }


def _search_witness(outcome: Outcome, history: KeyHistory, writers: _WritersByValue) -> Witness:
    if outcome.phantoms:
        observer = outcome.phantoms[0]
        late = [op for op in history.operations if op.kind != "read" and op.new == observer.old]
        failed = [op for op in history.failed if op.new == observer.old]
        return phantom_witness(observer, (), late=late, failed=failed, elsewhere=writers.elsewhere(history))
    if outcome.stuck is None:
        raise AssertionError("an invalid outcome says why")
    return stale_witness(history) or stuck_witness(outcome.stuck)
