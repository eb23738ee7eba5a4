"""Linearizability of one register whose values are unique: exact, in time O(n log n) at worst.

Theory of operation
-------------------
When no two operations write the same value, each value names its writer, and the register never takes a value
twice. Then (Gibbons and Korach, "Testing shared memories", SIAM J. Computing 26(4), 1997, section 4; extended here
by compare-and-set, as Fan and Golab 2018, and by operations whose fate is unknown):

1. What is read must have been written, by an operation that did not fail.
2. A pending operation whose value is seen (by an acknowledged operation, or by a pending compare-and-set that is
   itself needed) happened, and may have happened at any time after its invocation. Any other pending operation is
   dropped: if the history can be ordered with it, it can be ordered without it, for nobody observed its value.
3. A successful compare-and-set from u to v puts v immediately behind u, with nothing but reads of u between. Values
   so glued form a *chain*. A value can be replaced in this way only once, and a chain must begin with a write (or
   with the initial null). Inside a chain the order of the operations is given, up to the order of reads of one
   value: write u, reads of u, cas from u to v, reads of v, and so on. None of them may return before an earlier one
   is called.
4. Chains are blocks of the final order; nothing can come between. Let f be the least return in a chain and s its
   greatest call. Chain i has to stand before chain j when f_i < s_j: something in i had returned before something
   in j was called. So two chains with f_i < s_j and f_j < s_i contradict each other; and if there is no such pair,
   there is an order of all chains (a longer circle always contains such a pair: of its chains take the one with the
   least f, and its neighbours).
5. To find a pair fast: a chain with f < s is a *forward zone* [f, s]. Two forward zones contradict each other when
   they overlap. A chain with s < f contradicts a forward zone that contains [s, f]. Two of the latter kind never
   contradict each other. Sorting the forward zones makes both a matter of neighbours.

The initial value is a chain that begins with a write before all events.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, Literal

from raftbed.analysis.linearizability.operations import NEVER, KeyHistory, Operation

INITIAL = None
"""Token of the value that a register starts with."""

_BEFORE_ALL = -1

CONFLICTS_AT_MOST = 50
"""So many pairs of chains that contradict each other are reported: a chain may be long, and contradict every other."""


@dataclass(frozen=True, slots=True)
class Phantom:
    """Rule 1: a value was observed that no operation wrote."""

    observers: list[Operation]


@dataclass(frozen=True, slots=True)
class Fork:
    """Rule 3: two compare-and-sets that happened replaced the same value."""

    value: Any
    both: tuple[Operation, Operation]


@dataclass(frozen=True, slots=True)
class Circle:
    """Rule 3: compare-and-sets that each need the value of the next one, and the last that of the first."""

    operations: list[Operation]


@dataclass(frozen=True, slots=True)
class Disorder:
    """Rule 3: in this chain an operation returned before one was called that has to stand before it."""

    values: list[Any]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Rule 4: each of these two chains has to stand before the other."""

    first: list[Any]
    second: list[Any]


Contradiction = Phantom | Fork | Circle | Disorder | Conflict


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was found about one key.

    Attributes:
        verdict: "valid", "invalid", or "not-unique" (this algorithm does not apply).
        contradictions: what makes it invalid; not necessarily all there is.
        writers: value -> the operation that wrote it; the initial value is missing unless it was written.
        replaced_by: value -> the compare-and-set that happened and replaced it.
        happened: the compare-and-sets that happened, in order of call.
    """

    verdict: Literal["valid", "invalid", "not-unique"]
    contradictions: list[Contradiction]
    writers: dict[Any, Operation]
    replaced_by: dict[Any, Operation]
    happened: list[Operation]


class _Chains:
    """Values grouped into chains, with the summary (f, s) of each; see the theory above."""

    def __init__(self) -> None:
        self.least_return: list[int] = []
        self.greatest_call: list[int] = []
        self.roots: list[Any] = []


def _collect(
    history: KeyHistory, writers: dict[Any, Operation], first_end: dict[Any, int], last_call: dict[Any, int]
) -> bool:
    """Fill in who wrote each value, and for its reads the least return and the greatest call; False: not unique."""
    for operation in history.operations:
        kind = operation.kind
        if kind == "read":
            value = operation.old
            # Operations come in order of call, so that the last one seen has the greatest.
            last_call[value] = operation.call
            end = operation.end
            if end < first_end.get(value, NEVER):
                first_end[value] = end
        else:
            value = operation.new
            if value in writers or value is INITIAL or kind == "append":
                return False
            writers[value] = operation
    return True


def _needed(
    history: KeyHistory, writers: dict[Any, Operation], first_end: dict[Any, int]
) -> tuple[set[Any], list[Operation]]:
    """Values of pending operations that were observed (rule 2), and the compare-and-sets that happened, in order."""
    happened: list[Operation] = []
    needed: set[Any] = set()
    pending = False
    work: list[Any] = []
    for value, writer in writers.items():
        if writer.end == NEVER:
            pending = True
            if value in first_end:
                work.append(value)
        elif writer.kind == "cas":
            happened.append(writer)
            work.append(writer.old)
    if not pending:
        return needed, happened
    while work:
        value = work.pop()
        seen_writer = writers.get(value)
        if seen_writer is None or seen_writer.end != NEVER or value in needed:
            continue
        needed.add(value)
        if seen_writer.kind == "cas":
            happened.append(seen_writer)
            work.append(seen_writer.old)
    happened.sort(key=lambda operation: operation.call)
    return needed, happened


def _phantoms(history: KeyHistory, writers: dict[Any, Operation], happened: list[Operation]) -> list[Contradiction]:
    seen: dict[Any, list[Operation]] = {}
    for operation in history.operations:
        if operation.kind == "read" and operation.old not in writers and operation.old is not INITIAL:
            seen.setdefault(operation.old, []).append(operation)
    for operation in happened:
        if operation.old not in writers and operation.old is not INITIAL:
            seen.setdefault(operation.old, []).append(operation)
    return [Phantom(observers) for observers in seen.values()]


def _circle(start: Operation, writers: dict[Any, Operation], done: set[Any]) -> Circle | None:
    """The circle of compare-and-sets that the one given hangs on, if it hangs on one not yet reported."""
    path: dict[Any, Operation] = {}
    operation: Operation | None = start
    while operation is not None and operation.kind == "cas" and operation.new not in done:
        if operation.new in path:
            members = list(path.values())
            return Circle(members[members.index(operation) :])
        path[operation.new] = operation
        operation = writers.get(operation.old)
    done.update(path)
    return None


def _follow(
    chains: _Chains,
    writers: dict[Any, Operation],
    roots: list[Any],
    replaced_by: dict[Any, Operation],
    first_end: dict[Any, int],
    last_call: dict[Any, int],
) -> list[Contradiction]:
    """Summarize every chain; those that contradict themselves are returned and left out of the summary."""
    wrong: list[Contradiction] = []
    for root in roots:
        value = root
        if root is INITIAL:
            high = least = _BEFORE_ALL
        else:
            writer = writers[root]
            high = writer.call
            least = writer.end
        ordered = True
        while True:
            end = first_end.get(value)
            if end is not None:
                if end < high:
                    ordered = False
                    break
                least = min(least, end)
                high = max(high, last_call[value])
            successor = replaced_by.get(value)
            if successor is None:
                break
            if successor.end < high:
                ordered = False
                break
            least = min(least, successor.end)
            high = max(high, successor.call)
            value = successor.new
        if ordered:
            chains.roots.append(root)
            chains.least_return.append(least)
            chains.greatest_call.append(high)
        else:
            wrong.append(Disorder(chain_values(root, replaced_by)))
    return wrong


def chain_values(root: Any, replaced_by: dict[Any, Operation]) -> list[Any]:
    """The values of a chain in their order."""
    values = [root]
    while (successor := replaced_by.get(values[-1])) is not None:
        values.append(successor.new)
    return values


def _conflicts(chains: _Chains, replaced_by: dict[Any, Operation]) -> list[Contradiction]:
    """Pairs of chains that have to precede each other (rule 5)."""
    found: list[tuple[int, int]] = []
    least, greatest = chains.least_return, chains.greatest_call
    forward = sorted((f, s, i) for i, (f, s) in enumerate(zip(least, greatest, strict=True)) if f < s)
    starts: list[int] = []
    zones: list[tuple[int, int, int]] = []
    for zone in forward:
        if zones and zone[0] < zones[-1][1]:
            found.append((zones[-1][2], zone[2]))
            if zone[1] <= zones[-1][1]:
                continue
        starts.append(zone[0])
        zones.append(zone)
    if zones:
        for i, (f, s) in enumerate(zip(least, greatest, strict=True)):
            if s < f:
                place = bisect_left(starts, s) - 1
                if place >= 0 and zones[place][1] > f:
                    found.append((zones[place][2], i))
    found = found[:CONFLICTS_AT_MOST]
    values = {i: chain_values(chains.roots[i], replaced_by) for i in {i for pair in found for i in pair}}
    return [Conflict(values[i], values[j]) for i, j in found]


def analyse(history: KeyHistory) -> Analysis:
    """Decide one register's history.

    Parameters:
        history: the operations on the register, in order of invocation.

    Returns:
        The analysis; verdict "not-unique" when two operations that may have happened write the same value, or one
        writes the initial value.
    """
    writers: dict[Any, Operation] = {}
    first_end: dict[Any, int] = {}
    last_call: dict[Any, int] = {}
    if not _collect(history, writers, first_end, last_call):
        return Analysis("not-unique", [], writers, {}, [])
    needed, happened = _needed(history, writers, first_end)
    wrong = _phantoms(history, writers, happened)
    if wrong:
        return Analysis("invalid", wrong, writers, {}, happened)
    replaced_by: dict[Any, Operation] = {}
    for operation in happened:
        other = replaced_by.setdefault(operation.old, operation)
        if other is not operation:
            wrong.append(Fork(operation.old, (other, operation)))
    if wrong:
        return Analysis("invalid", wrong, writers, replaced_by, happened)
    roots: list[Any] = [INITIAL]
    roots += [
        value
        for value, writer in writers.items()
        if writer.kind == "write" and (writer.end != NEVER or value in needed)
    ]
    chains = _Chains()
    wrong = _follow(chains, writers, roots, replaced_by, first_end, last_call)
    if happened and not wrong:
        done: set[Any] = set()
        circles = (_circle(operation, writers, done) for operation in happened)
        circle = next((circle for circle in circles if circle is not None), None)  # one is enough, and each walk long
        wrong += [] if circle is None else [circle]
    wrong += _conflicts(chains, replaced_by)
    return Analysis("invalid" if wrong else "valid", wrong, writers, replaced_by, happened)
