"""Words for what the exact search found: the plain case of a stale value, or else where every order came to an end."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from typing import Any, Final

from raftbed.analysis.linearizability.operations import KeyHistory, Operation
from raftbed.analysis.linearizability.search import UNOBSERVED, Stuck
from raftbed.analysis.linearizability.witness import Witness, claim, observed, phrase, several, show

_CONCURRENT_SHOWN: Final = 5


def stale_witness(history: KeyHistory) -> Witness | None:
    """An observation of a value that had been overwritten for certain; None when the violation is not so plain.

    The value v was observed, after a write of something else had returned that began after every operation which
    can have written v had returned. With values written several times this is the contradiction that a reader can
    follow; it is not the only one there is.
    """
    if any(operation.kind == "append" for operation in history.operations):
        return None
    writers: dict[Any, list[Operation]] = {None: []}
    overwriters: list[Operation] = []
    for operation in history.operations:
        if operation.kind != "read":
            writers.setdefault(operation.new, []).append(operation)
            if not operation.pending:
                overwriters.append(operation)
    overwriters.sort(key=lambda operation: operation.end)
    ends = [operation.end for operation in overwriters]
    latest = _latest_calls(overwriters)
    last_writers = {value: _last_to_return(group) for value, group in writers.items()}
    calls = {value: [operation.call for operation in group] for value, group in writers.items()}
    for operation in sorted(history.operations, key=lambda operation: operation.end):
        value = operation.old
        if operation.pending or operation.kind == "write" or value not in writers:
            continue
        before = bisect_left(ends, operation.call)
        between = next((entry for entry in latest[before] if entry.new != value), None)
        candidates = bisect_right(calls[value], operation.end)
        last = last_writers[value][candidates]
        # A compare-and-set does not write what it replaces, so it is never its own candidate: old and new differ.
        if between is None or (last is not None and last.end > between.call) or (last is None and value is not None):
            continue
        return _stale(operation, between, last, candidates)
    return None


def _latest_calls(overwriters: list[Operation]) -> list[list[Operation]]:
    """For each prefix the operation called last, and the one called last of those that wrote another value."""
    best: list[Operation] = []
    prefixes: list[list[Operation]] = [[]]
    for operation in overwriters:
        ranked = sorted([*best, operation], key=lambda entry: -entry.call)
        best = ranked[:1] + [entry for entry in ranked[1:] if entry.new != ranked[0].new][:1]
        prefixes.append(best)
    return prefixes


def _last_to_return(group: list[Operation]) -> list[Operation | None]:
    """For each prefix (in order of call) the operation that returned last."""
    last: list[Operation | None] = [None]
    for operation in group:
        present = last[-1]
        last.append(operation if present is None or operation.end > present.end else present)
    return last


def _stale(operation: Operation, between: Operation, last: Operation | None, candidates: int) -> Witness:
    witness = Witness()
    value = observed(operation)
    this = "compare-and-set" if operation.invocation.f == "cas" else operation.invocation.f
    witness.add(operation, f"observed {value}, and began after {phrase(between)} had returned")
    if last is None:
        witness.add(between, f"replaced the initial {value}, and returned before {phrase(operation)} began")
        why = f"nobody had written {value}"
    else:
        witness.add(between, f"began after {value} had been written, and returned before {phrase(operation)} began")
        which = "only" if candidates == 1 else f"last of {candidates}"
        witness.add(last, f"the {which} to write {value} by then, and it had returned before {phrase(between)} began")
        all_of_them = "both" if candidates == 2 else f"all {candidates}"
        why = (
            f"only {phrase(last)} can have written {value}, and it had returned before that one began"
            if candidates == 1
            else f"{all_of_them} operations that wrote {value} had returned before that one began"
        )
    witness.sentence = f"{claim(operation)}, although {phrase(between)} had returned before this {this} began; {why}."
    return witness.finish()


def stuck_witness(stuck: Stuck) -> Witness:
    """Where no order was left: the operation whose return cannot be explained, and those that were open then."""
    witness = Witness()
    last = stuck.operation
    witness.add(last, "no order of the operations up to its return explains its result")
    concurrent = sorted(stuck.concurrent, key=lambda operation: (operation.pending, -operation.call))
    for operation in concurrent[:_CONCURRENT_SHOWN]:
        witness.add(
            operation, "may take effect at any time, or never" if operation.pending else "was open at that time"
        )
    held = [_show_token(value) for value in stuck.values if value != UNOBSERVED]
    if UNOBSERVED in stuck.values:
        held.append("something that nobody observed")
    many = len(concurrent)
    rest = "" if not many else f", whatever the {many} operations do that were open then" if many > 1 else (
        f", whatever {phrase(concurrent[0])} does, which was open then"
    )  # fmt: skip
    witness.sentence = (
        f"{claim(last)}, which no order explains: by all that was answered before, the value must have been "
        f"{several(held, 'or')}, and there is no way from there to this result{rest}."
    )
    return witness.finish()


def _show_token(value: Any) -> str:
    """A value token (see `operations.token`) as its value."""
    if isinstance(value, tuple):
        return show(value[1] if value[0] != "json" else json.loads(value[1]))
    return show(value)
