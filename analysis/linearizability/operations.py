"""From a history (events) to operations (an invocation with its completion), key by key.

What an event must look like is the history format of docs/formats.md; what is not so raises
:class:`~raftbed.errors.HistoryError` with the event's index, because a checker that guesses is worse than none.

Order is the order of the events in the history. The recorder appends every event as it happens, so an operation
precedes another in real time exactly when its completion stands before the other's invocation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from raftbed.errors import HistoryError
from raftbed.model import NEMESIS, Op

NEVER: Final = 1 << 62
"""The place of a return that did not happen: after every event."""

Kind = Literal["read", "write", "cas", "append"]
"""What an operation does to its object: `get` is a read, `put` a write."""

_FUNCTIONS: Final[dict[str, dict[str, Kind]]] = {
    "register": {"read": "read", "write": "write"},
    "cas-register": {"read": "read", "write": "write", "cas": "cas"},
    "kv-append": {"get": "read", "put": "write", "append": "append"},
}

MODELS: Final = tuple(_FUNCTIONS)
"""Names of the models that can be checked; each is a map of independent objects, one per key."""


class Operation(NamedTuple):
    """One operation on one object.

    Attributes:
        call: position of its invocation among the history's events.
        end: position of its completion, or `NEVER` where nobody knows whether it happened.
        kind: "read", "write", "cas" or "append".
        old: what it observed: the value that a read returned, or that a cas replaced; as a token (see `token`).
        new: what it wrote: the value of a write, of a cas, or the string appended; as a token.
        invocation: the event that began it.
        completion: the event that ended it; None where there is none.
    """

    call: int
    end: int
    kind: Kind
    old: Any
    new: Any
    invocation: Op
    completion: Op | None

    @property
    def pending(self) -> bool:
        """Whether nobody knows if it happened."""
        return self.end == NEVER


@dataclass(slots=True)
class KeyHistory:
    """The operations on one key.

    Attributes:
        key: the key as recorded.
        operations: those that happened or may have happened, in order of invocation. Left out are those without
            effect on the answer: reads without an answer, pending cas from a value to itself.
        failed: operations that certainly did not happen; they explain a value that nobody wrote.
        acknowledged: how many ended ok.
        observed: how many of those observed a value (reads and cas).
    """

    key: Any
    operations: list[Operation] = field(default_factory=list)
    failed: list[Operation] = field(default_factory=list)
    acknowledged: int = 0
    observed: int = 0


def token(value: Any) -> Any:
    """A hashable stand-in for a JSON value: equal exactly when the values are: true is not 1, but 1.0 is."""
    kind = type(value)
    if kind is int or kind is str or value is None:
        return value
    if kind is bool:
        return ("bool", value)
    if kind is float:
        return _number(value)
    return ("json", json.dumps(_with_whole_numbers(value), sort_keys=True, default=str))


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _with_whole_numbers(value: Any) -> Any:
    """The value with integers in the place of floats that are whole, at any depth: JSON has one kind of numbers."""
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        return {name: _with_whole_numbers(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_whole_numbers(item) for item in value]
    return value


def infer_model(ops: Sequence[Op]) -> str | None:
    """The model that the operations' names belong to; None when no client did anything.

    Raises:
        HistoryError: the names fit no model, or several of them; lists the names found.
    """
    found = {op.f for op in ops if op.process != NEMESIS}
    if not found:
        return None
    for name in MODELS:
        if found <= _FUNCTIONS[name].keys():
            return name
    known = "; ".join(f"{name}: {', '.join(functions)}" for name, functions in _FUNCTIONS.items())
    raise HistoryError(
        f"The model cannot be told from the operations: found {', '.join(sorted(map(repr, found)))}.",
        remedy=f"The models and their operations are {known}. Is it a history of one of them?",
    )


def _wrong(op: Op, what: str) -> HistoryError:
    return HistoryError(f"Event {op.index} of the history ({op.type} of {op.f!r} by process {op.process}): {what}")


def _text(op: Op, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(op, f"{op.f!r} needs a string as its value, but carries {value!r}.")
    return value


def _read_values(model: str) -> Callable[[Op], Any]:
    if model == "kv-append":
        return lambda op: "" if op.value is None else _text(op, op.value)
    return lambda op: token(op.value)


def _checked_completion(call: Op, end: Op, kind: Kind) -> None:
    if end.f != call.f:
        raise _wrong(end, f"completes {call.f!r}, which this process invoked at event {call.index}.")
    if end.key != call.key and end.key is not None:
        raise _wrong(end, f"has key {end.key!r}, but was invoked with key {call.key!r} at event {call.index}.")
    if kind != "read" and end.type == "ok" and end.value is not None and end.value != call.value:
        raise _wrong(end, f"carries {end.value!r}, but was invoked with {call.value!r} at event {call.index}.")


def _argument(op: Op, kind: Kind, model: str) -> tuple[Any, Any]:
    """(old, new) that an invocation asks for."""
    if kind == "read":
        return None, None
    if model == "kv-append":
        return None, _text(op, op.value)
    if kind == "write":
        return None, token(op.value)
    if not isinstance(op.value, list | tuple) or len(op.value) != 2:
        raise _wrong(op, f"a cas carries [old, new], but this one carries {op.value!r}.")
    return token(op.value[0]), token(op.value[1])


def split(ops: Sequence[Op], model: str) -> list[KeyHistory]:
    """Pair invocations with completions, and sort the operations by key, in order of first use.

    A read that failed or got no answer tells nothing and is left out; so does a failed write or cas, which is kept
    aside. An operation that ended `info`, or not at all, is pending: it may take effect at any time after its
    invocation, or never. A successful cas from a value to itself is a read of that value.

    Raises:
        HistoryError: an operation that the model does not have, a completion without an invocation, a process that
            invokes while it has an operation open, a value of the wrong shape, or nested too deeply.
    """
    functions = _FUNCTIONS[model]
    keys: dict[Any, KeyHistory] = {}
    open_calls: dict[int | str, tuple[int, Op]] = {}
    ended: list[tuple[int, int, Op, Op | None]] = []
    for position, op in enumerate(ops):
        process = op.process
        if process == NEMESIS:
            continue
        if op.type == "invoke":
            if process in open_calls:
                raise _wrong(
                    op, f"this process still has the operation open that it invoked at event "
                    f"{open_calls[process][1].index}; a process does one operation at a time."
                )  # fmt: skip
            if op.f not in functions:
                raise _wrong(op, f"the model {model!r} has no such operation; it has {', '.join(functions)}.")
            open_calls[process] = (position, op)
        else:
            opened = open_calls.pop(process, None)
            if opened is None:
                raise _wrong(op, "a completion, but this process has no operation open.")
            ended.append((opened[0], position, opened[1], op))
    ended += [(position, NEVER, op, None) for position, op in open_calls.values()]
    ended.sort(key=lambda entry: entry[0])
    read_value = _read_values(model)
    for call, end, invocation, completion in ended:
        kind = functions[invocation.f]
        try:
            name = token(invocation.key)
            old, new = _argument(invocation, kind, model)
            if kind == "read" and completion is not None and completion.type == "ok":
                old = read_value(completion)
        except RecursionError as error:
            raise _wrong(invocation, "its value or its key is nested too deeply to be compared.") from error
        history = keys.get(name)
        if history is None:
            history = keys[name] = KeyHistory(invocation.key)
        status = "info"
        if completion is not None:
            _checked_completion(invocation, completion, kind)
            status = completion.type
        if status == "ok" and completion is not None:
            history.acknowledged += 1
            if kind == "read" or kind == "cas":
                history.observed += 1
            if kind == "cas" and old == new:
                kind = "read"
            history.operations.append(Operation(call, end, kind, old, new, invocation, completion))
        elif status == "fail":
            if kind != "read":
                history.failed.append(Operation(call, end, kind, old, new, invocation, completion))
        elif kind != "read" and not (kind == "cas" and old == new):
            history.operations.append(Operation(call, NEVER, kind, old, new, invocation, completion))
    return list(keys.values())
