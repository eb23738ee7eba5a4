"""The few operations that prove a violation, and one plain sentence about them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from raftbed.analysis.linearizability.operations import NEVER, Operation

OPERATIONS_AT_MOST: Final = 6
"""A witness longer than this is no help to a reader."""

_TEXT_AT_MOST: Final = 60
_NAMED_AT_MOST: Final = 4

WriterElsewhere = Callable[[Any], tuple[Any, Operation] | None]
"""Finds (key, operation) that wrote a value (given as a token) to another key; None when there is none."""

_Listed = dict[int, tuple[Operation, Callable[[Operation], str]]]
"""By identity, for there may be as many links as operations: each with a function that says what it proves."""


@dataclass(slots=True)
class Witness:
    """Evidence for a violation.

    Attributes:
        sentence: what contradicts what.
        operations: each with what it proves, in the order of their calls; empty until `finish` was called.
        left_out: how many operations of the argument are not among them, because there were too many.
    """

    sentence: str = ""
    operations: list[tuple[Operation, str]] = field(default_factory=list)
    left_out: int = 0
    _evidence: _Listed = field(default_factory=dict)
    _writers: _Listed = field(default_factory=dict)
    _links: _Listed = field(default_factory=dict)

    def add(self, operation: Operation | None, why: str) -> None:
        """Put an operation on the list that the argument stands on; the initial value has none."""
        if operation is not None:
            self._evidence.setdefault(id(operation), (operation, lambda _operation: why))

    def add_writer(self, operation: Operation, why: str) -> None:
        """Put an operation on the list that shows where a value came from."""
        self._writers.setdefault(id(operation), (operation, lambda _operation: why))

    def link(self, operation: Operation, why: Callable[[Operation], str] | None = None) -> None:
        """Put an operation on the list that is only a step from one to the next."""
        self._links.setdefault(id(operation), (operation, why or _made_directly))

    def all(self) -> list[Operation]:
        """Every operation so far, once."""
        listed = {**self._links, **self._writers, **self._evidence}
        return [operation for operation, _why in listed.values()]

    def finish(self) -> Witness:
        """Choose at most six: first what the argument stands on, then writers, then the ends of the links."""
        writers = [entry for name, entry in self._writers.items() if name not in self._evidence]
        known = self._evidence.keys() | self._writers.keys()
        links = [entry for name, entry in self._links.items() if name not in known]
        chosen = [*self._evidence.values(), *writers][:OPERATIONS_AT_MOST]
        room = OPERATIONS_AT_MOST - len(chosen)
        if len(links) > room:
            chosen += [*links[: (room + 1) // 2], *links[len(links) - room // 2 :]]
        else:
            chosen += links
        self.left_out = len(self._evidence) + len(writers) + len(links) - len(chosen)
        chosen.sort(key=lambda entry: entry[0].call)
        self.operations = [(operation, why(operation)) for operation, why in chosen]
        return self

    @property
    def complete_at(self) -> int:
        """Position in the history by which all of it had been seen."""
        return max((op.call if op.end == NEVER else op.end for op, _why in self.operations), default=0)


def _made_directly(operation: Operation) -> str:
    return f"made {written(operation)} directly from {observed(operation)}"


def show(value: Any) -> str:
    """A value as a reader expects it: JSON, cut to a readable length."""
    text = value if isinstance(value, str) and value.isalnum() and not value.isdigit() else json.dumps(value)
    return text if len(text) <= _TEXT_AT_MOST else f"{text[: _TEXT_AT_MOST - 1]}…"


def client(operation: Operation) -> str:
    """Who did it."""
    return f"client {operation.invocation.process}"


def observed(operation: Operation) -> str:
    """The value that it saw, as recorded."""
    invocation, completion = operation.invocation, operation.completion
    if invocation.f == "cas":
        return show(invocation.value[0])
    value = completion.value if completion is not None else None
    return show("" if invocation.f == "get" and value is None else value)


def written(operation: Operation) -> str:
    """The value that it wrote, as recorded."""
    invocation = operation.invocation
    return show(invocation.value[1] if invocation.f == "cas" else invocation.value)


def phrase(operation: Operation) -> str:
    """The operation as a noun phrase: "client 3's read of 7"."""
    who, f = f"{client(operation)}'s", operation.invocation.f
    if f == "cas":
        return f"{who} compare-and-set from {observed(operation)} to {written(operation)}"
    if f in ("read", "get"):
        return f"{who} {f} of {observed(operation)}"
    return f"{who} {f} of {written(operation)}"


def claim(operation: Operation) -> str:
    """What the operation's answer claims, as the beginning of a sentence: "Client 3's read returned 7"."""
    who, f = f"Client {operation.invocation.process}'s", operation.invocation.f
    if f in ("read", "get"):
        return f"{who} {f} returned {observed(operation)}"
    if f == "cas":
        ending = "took effect (its value was seen)" if operation.pending else "succeeded"
        return f"{who} compare-and-set from {observed(operation)} to {written(operation)} {ending}"
    return f"{who} {f} of {written(operation)} was acknowledged"


def text(operation: Operation) -> str:
    """The operation in the shortest form: "read → 7", "write 7", "cas 7 → 9"."""
    f = operation.invocation.f
    if f == "cas":
        return f"cas {observed(operation)} → {written(operation)}"
    if f in ("read", "get"):
        return f"{f} → {observed(operation)}"
    return f"{f} {written(operation)}"


def record(operation: Operation, why: str) -> dict[str, Any]:
    """The operation as it stands in a verdict's details."""
    invocation, completion = operation.invocation, operation.completion
    reads = invocation.f in ("read", "get")
    return {
        "index": invocation.index,
        "process": invocation.process,
        "f": invocation.f,
        "value": completion.value if reads and completion is not None else invocation.value,
        "text": text(operation),
        "call": invocation.time,
        "return": None if completion is None or completion.type == "info" else completion.time,
        "type": "info" if completion is None else completion.type,
        "node": (completion.node if completion is not None else None) or invocation.node,
        "why": why,
    }


def several(phrases: Sequence[str], joint: str = "and") -> str:
    """Words joined into a list, a long one cut short."""
    if len(phrases) <= 1:
        return "".join(phrases)
    if len(phrases) > _NAMED_AT_MOST:
        more = len(phrases) - _NAMED_AT_MOST + 1
        return f"{', '.join(phrases[: _NAMED_AT_MOST - 1])} {joint} {more} more"
    return f"{', '.join(phrases[:-1])} {joint} {phrases[-1]}"


def phantom_witness(
    observer: Operation,
    seen_by: Sequence[Operation],
    *,
    late: Sequence[Operation],
    failed: Sequence[Operation],
    elsewhere: WriterElsewhere,
) -> Witness:
    """A value was observed that no operation can have written by then.

    Parameters:
        observer: who observed it.
        seen_by: for an observer that is pending: what proves that it took effect; the answer comes last.
        late: operations that wrote the value to this key, but too late, in order of call.
        failed: operations that tried to, and failed.
        elsewhere: looks the value up in other keys.
    """
    witness = Witness()
    value = observed(observer)
    witness.add(observer, f"observed {value}")
    for proof in seen_by[-1:]:
        witness.add(proof, f"proves that {phrase(observer)} took effect")
    for proof in seen_by[:-1]:
        witness.link(proof)
    head = f"{claim(observer)}, although "
    if late:
        witness.add(late[0], f"the first to write {value}, and it began too late")
        only = "only this operation wrote" if len(late) == 1 else "this was the first operation to write"
        witness.sentence = f"{claim(observer)}, before {phrase(late[0])} began, and {only} {value}."
    elif failed:
        witness.add(failed[0], f"the only attempt to write {value}, and it failed")
        which = "it" if len(failed) == 1 else "each of them"
        tried = several([phrase(op) for op in failed])
        witness.sentence = f"{head}nobody wrote {value}: {tried} failed, so {which} must not have happened."
    elif (other := elsewhere(observer.old)) is not None:
        key, writer = other
        witness.add(writer, f"wrote {value}, but to key {show(key)}")
        witness.sentence = f"{head}nobody wrote {value} to this key: {phrase(writer)} went to key {show(key)}."
    else:
        witness.sentence = f"{head}no operation wrote {value}."
    return witness.finish()
