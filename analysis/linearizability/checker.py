"""The linearizability check: from a history's events to a verdict over all its keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from raftbed.analysis.linearizability.budget import Budget, Limit
from raftbed.analysis.linearizability.exact import Outcome, decide
from raftbed.analysis.linearizability.explain import explain
from raftbed.analysis.linearizability.operations import MODELS, KeyHistory, Operation, infer_model, split
from raftbed.analysis.linearizability.unique import analyse
from raftbed.analysis.linearizability.witness import (
    Witness,
    claim,
    phantom_witness,
    phrase,
    record,
    several,
    show,
)

from raftbed.errors import UsageError
from raftbed.model import INVALID, UNKNOWN, VALID, Op, Validity, Verdict, worst

CHECKER: Final = "linearizable"
"""Name of this check."""

_CONCURRENT_SHOWN: Final = 5

Result = dict[str, Any]
"""What was found about one key: validity, operations (how many), summary, method; for invalid ones also witness."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a check tells while it works.

    Attributes:
        key: the key, as text.
        result: what was found about it; None when the search for it begins.
        model: name of the model.
    """

    key: str
    result: Result | None
    model: str


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
        progress: called when the search for a key begins, and when a key is decided.

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
    results = _Results(chosen, time_limit, memory_limit, progress)
    names = key_names([history.key for history in histories])
    searched: list[tuple[str, KeyHistory]] = []
    for name, history in zip(names, histories, strict=True):
        results.count(history)
        if chosen == "kv-append" or not _decided_fast(name, history, histories, results):
            searched.append((name, history))
    searched.sort(key=lambda entry: len(entry[1].operations))
    for number, (name, history) in enumerate(searched):
        results.begin(name)
        part = budget.part(budget.remaining() / (len(searched) - number))
        results.add(name, _searched(history, str(chosen), part, histories))
    return results.verdict()


def key_names(keys: Sequence[Any]) -> list[str]:
    """A text for each key, no two alike: strings as they are, other values as JSON."""
    names = [key if isinstance(key, str) else json.dumps(key, sort_keys=True) for key in keys]
    taken = {key for key in keys if isinstance(key, str)}
    return [
        f"{name} (not a string)" if not isinstance(key, str) and name in taken else name
        for key, name in zip(keys, names, strict=True)
    ]


def combine(
    model: str | None,
    results: Mapping[str, Result],
    *,
    acknowledged: int,
    observed: int,
    limits: Mapping[str, Any],
    missing: str | None = None,
) -> Verdict:
    """The verdict over all keys.

    Parameters:
        model: its name; None when there was nothing to infer it from.
        results: per key.
        acknowledged: number of operations that ended ok.
        observed: number of those that observed a value.
        limits: as they go into the details.
        missing: why keys are missing in `results`, as a sentence; None when all are there.
    """
    order = sorted(results.items(), key=lambda entry: -("valid", "unknown", "invalid").index(entry[1]["validity"]))
    witnesses = [(name, result["witness"]) for name, result in order if result.get("witness")]
    first = min(witnesses, key=lambda entry: _witness_rank(entry[1]), default=None)
    details = {
        "model": model,
        "keys": {name: {k: v for k, v in result.items() if k != "witness"} for name, result in order},
        "witness": None if first is None else {"key": first[0], **first[1]},
        "limits": dict(limits),
    }
    validity: Validity = worst([result["validity"] for result in results.values()])
    if validity != INVALID and missing is not None:
        return Verdict(CHECKER, UNKNOWN, missing, details)
    return Verdict(CHECKER, *_summary(validity, order, details, acknowledged, observed), details)


def _witness_rank(witness: Mapping[str, Any]) -> tuple[int, int]:
    operations = witness["operations"]
    return len(operations), max((op["index"] for op in operations), default=0)


def _summary(
    validity: Validity,
    order: Sequence[tuple[str, Result]],
    details: Mapping[str, Any],
    acknowledged: int,
    observed: int,
) -> tuple[Validity, str]:
    keys = "1 key" if len(order) == 1 else f"{len(order)} keys"
    if validity == INVALID:
        wrong = sum(result["validity"] == INVALID for _name, result in order)
        where = f"On {wrong} of {keys} the" if len(order) > 1 else "The"
        witness = details["witness"]
        sentence = f" Key {show(witness['key'])}: {witness['sentence']}" if witness else ""
        return INVALID, f"{where} operations cannot be put in any order that explains their results.{sentence}"
    if not acknowledged:
        return UNKNOWN, "Nothing to check: no operation succeeded."
    if not observed:
        return UNKNOWN, "Nothing to check: no read succeeded, so nothing that was written was ever observed."
    if validity == UNKNOWN:
        undecided = [(name, result) for name, result in order if result["validity"] == UNKNOWN]
        name, result = undecided[0]
        more = f" (and {len(undecided) - 1} more)" if len(undecided) > 1 else ""
        return UNKNOWN, f"Key {show(name)}{more}: {result['summary']}"
    reads = "" if any(result["reads"] for _name, result in order) else " No read succeeded: only compare-and-sets did."
    return (
        VALID,
        f"All {acknowledged} acknowledged operations on {keys} can be put in an order that explains them.{reads}",
    )


class _Results:
    """Collects what is found out, and tells it."""

    def __init__(
        self,
        model: str | None,
        time_limit: float | None,
        memory_limit: int | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._model = model
        self._limits: dict[str, Any] = {"time": time_limit, "memory": memory_limit, "hit": None, "key": None}
        self._progress = progress
        self._results: dict[str, Result] = {}
        self._acknowledged = 0
        self._observed = 0

    def count(self, history: KeyHistory) -> None:
        self._acknowledged += history.acknowledged
        self._observed += history.observed

    def begin(self, name: str) -> None:
        if self._progress is not None:
            self._progress(Progress(name, None, str(self._model)))

    def add(self, name: str, result: Result) -> None:
        limit = result.pop("limit", None)
        if limit is not None and self._limits["hit"] is None:
            self._limits.update(hit=limit, key=name)
        self._results[name] = result
        if self._progress is not None:
            self._progress(Progress(name, result, str(self._model)))

    def verdict(self) -> Verdict:
        return combine(
            self._model,
            self._results,
            acknowledged=self._acknowledged,
            observed=self._observed,
            limits=self._limits,
        )


def _result(
    validity: Validity, history: KeyHistory, method: str, summary: str, witness: Witness | None = None
) -> Result:
    reads = sum(operation.invocation.f != "cas" for operation in history.operations if operation.kind == "read")
    result: Result = {
        "validity": validity,
        "operations": len(history.operations) + len(history.failed),
        "reads": reads,
        "summary": summary,
        "method": method,
    }
    if witness is not None:
        result["witness"] = {
            "sentence": witness.sentence,
            "operations": [record(operation, why) for operation, why in witness.operations],
        }
    return result


def _elsewhere(history: KeyHistory, histories: Sequence[KeyHistory]) -> Callable[[Any], tuple[Any, Operation] | None]:
    def find(value: Any) -> tuple[Any, Operation] | None:
        for other in histories:
            if other is not history:
                for operation in other.operations:
                    if operation.kind != "read" and operation.new == value:
                        return other.key, operation
        return None

    return find


def _decided_fast(name: str, history: KeyHistory, histories: Sequence[KeyHistory], results: _Results) -> bool:
    analysis = analyse(history)
    if analysis.verdict == "not-unique":
        return False
    if analysis.verdict == VALID:
        results.add(name, _result(VALID, history, "unique-values", "Linearizable."))
        return True
    witness = explain(history, analysis, _elsewhere(history, histories))
    results.add(name, _result(INVALID, history, "unique-values", witness.sentence, witness))
    return True


def _searched(history: KeyHistory, model: str, budget: Budget, histories: Sequence[KeyHistory]) -> Result:
    outcome = decide(history, model, budget)
    method = f"search ({outcome.method})"
    if outcome.validity == VALID:
        return _result(VALID, history, method, "Linearizable.")
    if outcome.validity == INVALID:
        witness = _search_witness(outcome, history, histories)
        return _result(INVALID, history, method, witness.sentence, witness)
    result = _result(UNKNOWN, history, method, undecided(outcome.limit or "time", len(history.operations)))
    return {**result, "limit": outcome.limit}


def undecided(limit: Limit, operations: int | None = None) -> str:
    """Why a key was not decided."""
    of_them = f" of {operations} operations" if operations is not None else ""
    return f"Not decided: the search for an order{of_them} reached its {limit} limit. A higher limit may decide it."


def _search_witness(outcome: Outcome, history: KeyHistory, histories: Sequence[KeyHistory]) -> Witness:
    if outcome.phantoms:
        return phantom_witness(outcome.phantoms[0], [], history, _elsewhere(history, histories))
    stuck = outcome.stuck
    if stuck is None:
        raise AssertionError("an invalid outcome says why")
    witness = Witness()
    last = stuck.operation
    witness.add(last, "no order of the operations before it explains its result")
    concurrent = sorted(stuck.concurrent, key=lambda operation: (operation.pending, -operation.call))
    for operation in concurrent[:_CONCURRENT_SHOWN]:
        fate = "and its fate is unknown" if operation.pending else f"when {phrase(last)} returned"
        witness.add(operation, f"was open {fate}")
    held = several([show(value) for value in stuck.values], "or")
    among = "" if not concurrent else f" and with the {len(concurrent)} operations open at that moment"
    witness.sentence = (
        f"{claim(last)}, which no order explains: after all that had returned before, the value could only be "
        f"{held or 'none'}{among} there is no way from there to this result."
    )
    return witness.finish()
