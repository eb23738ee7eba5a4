"""From a contradiction among unique values (see unique.py) to its witness: which operations, and why."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Any, Final

from raftbed.analysis.linearizability.operations import KeyHistory, Operation
from raftbed.analysis.linearizability.unique import (
    INITIAL,
    Analysis,
    Circle,
    Conflict,
    Contradiction,
    Disorder,
    Fork,
    Phantom,
)
from raftbed.analysis.linearizability.witness import (
    Witness,
    WriterElsewhere,
    claim,
    client,
    observed,
    phantom_witness,
    phrase,
    several,
    written,
)

_CANDIDATES: Final = 50
_EFFORT_PER_OPERATION: Final = 4
_EFFORT_AT_LEAST: Final = 1000
_STEPS_SHOWN: Final = 5

Placed = tuple[Operation, int]
"""An operation, and its rank in its chain: 2i for the writer of the i-th value, 2i + 1 for its reads."""


def explain(history: KeyHistory, analysis: Analysis, elsewhere: WriterElsewhere) -> Witness:
    """The shortest witness, and of several as short the earliest.

    Of many contradictions only the first are looked at, and of those between long chains fewer: the time grows with the
    number of operations, and not with what contradicts what.

    Parameters:
        history: the key's operations.
        analysis: what was found; its verdict must be "invalid".
        elsewhere: looks a value up in other keys.
    """
    explainer = _Explainer(history, analysis, elsewhere)
    effort = max(_EFFORT_AT_LEAST, _EFFORT_PER_OPERATION * len(history.operations))
    found: list[Witness] = []
    for contradiction in analysis.contradictions[:_CANDIDATES]:
        effort -= _size(contradiction)
        if found and effort < 0:
            break
        found.append(explainer.witness(contradiction))
    return min(found, key=lambda witness: (len(witness.operations), witness.complete_at))


def _size(contradiction: Contradiction) -> int:
    """How many values there are to look at."""
    if isinstance(contradiction, Circle):
        return len(contradiction.operations)
    if isinstance(contradiction, Disorder):
        return len(contradiction.values)
    return len(contradiction.first) + len(contradiction.second) if isinstance(contradiction, Conflict) else 1


class _Explainer:
    def __init__(self, history: KeyHistory, analysis: Analysis, elsewhere: WriterElsewhere) -> None:
        self._writers = analysis.writers
        self._replaced_by = analysis.replaced_by
        self._elsewhere = elsewhere
        self._seen_by: dict[Any, list[Operation]] = {}
        for operation in analysis.happened:
            self._seen_by.setdefault(operation.old, []).append(operation)
        self._reads: dict[Any, list[Operation]] = {}
        for operation in history.operations:
            if operation.kind == "read":
                self._reads.setdefault(operation.old, []).append(operation)
        self._failed: dict[Any, list[Operation]] = {}
        for operation in history.failed:
            self._failed.setdefault(operation.new, []).append(operation)

    def witness(self, contradiction: Contradiction) -> Witness:
        if isinstance(contradiction, Phantom):
            observer = min(contradiction.observers, key=lambda op: (op.pending, op.call))
            failed = self._failed.get(observer.old, ())
            proof = self._proof(observer)
            return phantom_witness(observer, proof, late=(), failed=failed, elsewhere=self._elsewhere)
        if isinstance(contradiction, Fork):
            witness = self._fork(contradiction)
        elif isinstance(contradiction, Circle):
            witness = self._circle(contradiction)
        elif isinstance(contradiction, Disorder):
            witness = self._disorder(contradiction.values)
        else:
            witness = self._conflict(contradiction)
        self._prove(witness)
        return witness.finish()

    def _prove(self, witness: Witness) -> None:
        """For pending operations add what shows that they happened, where the witness does not yet show it."""
        present = witness.all()
        shown = {operation.old for operation in present if operation.kind != "write"}
        for operation in present:
            if operation.pending and operation.new not in shown:
                proofs = self._proof(operation)
                witness.add(proofs[-1], f"proves that {phrase(operation)} took effect")
                for proof in proofs[:-1]:
                    witness.link(proof)

    def _proof(self, operation: Operation) -> list[Operation]:
        """What proves that a pending operation happened: who saw its value, on the shortest way to an answer."""
        if not operation.pending:
            return []
        came_from: dict[Any, Operation] = {operation.new: operation}
        values: deque[Any] = deque(came_from)
        while values:
            value = values.popleft()
            if value in self._reads:
                return self._way(operation, came_from, self._reads[value][0])
            for successor in self._seen_by.get(value, ()):
                if not successor.pending:
                    return self._way(operation, came_from, successor)
                if successor.new not in came_from:
                    came_from[successor.new] = successor
                    values.append(successor.new)
        raise AssertionError("a pending operation that happened was seen by somebody")

    def _way(self, start: Operation, came_from: dict[Any, Operation], last: Operation) -> list[Operation]:
        """The operations behind `start` up to `last`, each of which saw the value of the one before."""
        way = [last]
        while (before := came_from[way[-1].old]) is not start:
            way.append(before)
        return way[::-1]

    def _only(self, value: Any) -> str:
        """Why a value cannot come back."""
        if value is INITIAL:
            return "nobody wrote null"
        writer = self._writers[value]
        return f"only {client(writer)}'s {_name(writer)} wrote {written(writer)}"

    def _show(self, value: Any) -> str:
        return "null" if value is INITIAL else written(self._writers[value])

    def _steps(self, values: list[Any]) -> str:
        """Values that followed each other; of many only the ends."""
        if len(values) <= _STEPS_SHOWN:
            return " → ".join(map(self._show, values))
        return " → ".join([*map(self._show, values[:2]), "…", *map(self._show, values[-2:])])

    def _add_writer(self, witness: Witness, value: Any) -> None:
        if value is not INITIAL:
            witness.add_writer(self._writers[value], f"the only operation that wrote {self._show(value)}")

    # The rules, one by one

    def _fork(self, fork: Fork) -> Witness:
        witness = Witness()
        for operation in fork.both:
            witness.add(operation, f"replaced {observed(operation)} by {written(operation)}")
        self._add_writer(witness, fork.value)
        first, second = fork.both
        happened = "both happened" if first.pending or second.pending else "both succeeded"
        value = self._show(fork.value)
        written_once = f"{value} was there only once ({self._only(fork.value)})"
        witness.sentence = f"{_capital(phrase(first))} and {phrase(second)} {happened}, although {written_once}."
        return witness

    def _circle(self, circle: Circle) -> Witness:
        """The list begins with one that happened for certain, for on it depends that the others did."""
        witness = Witness()
        members = circle.operations
        first = next((place for place, member in enumerate(members) if not member.pending), None)
        proof: Operation | None = None
        if first is None:  # no two of them replaced one value, so that only a read can have looked into the circle
            first = next(place for place, member in enumerate(members) if member.new in self._reads)
            proof = self._reads[members[first].new][0]
            witness.add(proof, f"proves that {phrase(members[first])} took effect")
        members = [*members[first:], *members[:first]]
        for operation in members[:2]:
            witness.add(operation, _needs(operation))
        for operation in members[2:]:
            witness.link(operation, _needs)
        shows = f", as {phrase(proof)} shows" if proof is not None else ""
        witness.sentence = (
            f"{_capital(several(list(map(phrase, members))))} happened{shows}, although each of them needs a value "
            "that only the next one wrote, and so round in a circle."
        )
        return witness

    def _placed(self, values: list[Any]) -> list[Placed]:
        """The operations of a chain, in order of rank; the initial value has no writer."""
        placed: list[Placed] = []
        for number, value in enumerate(values):
            if value is not INITIAL:
                placed.append((self._writers[value], 2 * number))
            placed += [(read, 2 * number + 1) for read in self._reads.get(value, ())]
        return placed

    def _link(self, witness: Witness, values: list[Any], ranks: list[int]) -> list[Any]:
        """Add what ties the operations at these ranks to one chain; returns the values from the first to the last."""
        low, high = min(ranks) // 2, max(ranks) // 2
        self._add_writer(witness, values[low])
        for value in values[low + 1 : high + 1]:
            witness.link(self._writers[value])
        return values[low : high + 1]

    def _disorder(self, values: list[Any]) -> Witness:
        early, late = _out_of_order(self._placed(values))
        witness = Witness()
        first, rank = late  # stands first in the chain, but was called after `other` had returned
        other, other_rank = early
        witness.add(first, f"began after {phrase(other)} had returned")
        witness.add(other, f"had returned before {phrase(first)} began")
        path = self._link(witness, values, [rank, other_rank])
        value = self._show(values[rank // 2])
        if rank // 2 == other_rank // 2:
            verb = "wrote" if first.pending or first.completion is not None else "may have written"
            witness.sentence = f"{claim(other)} before {phrase(first)} began, and only this operation {verb} {value}."
            return witness
        steps = self._steps(path)
        if first.kind == "read":
            how = "" if other.kind == "cas" and len(path) == 2 else f"; by then {value} had been replaced ({steps})"
            witness.sentence = (
                f"{claim(first)}, although {phrase(other)} had returned before this {_name(first)} began{how}, "
                f"and {self._only(values[rank // 2])}, so it could not come back."
            )
        else:
            witness.sentence = (
                f"{_capital(phrase(other))} had returned before {phrase(first)} began, although its value was made "
                f"from {value} ({steps}) and {self._only(values[rank // 2])}."
            )
        return witness

    def _conflict(self, conflict: Conflict) -> Witness:
        one, two = self._placed(conflict.first), self._placed(conflict.second)
        inside: list[tuple[Placed | None, Placed, Placed, bool]] = []
        for outer, inner, values, swapped in ((one, two, conflict.first, False), (two, one, conflict.second, True)):
            found = _sandwich(outer, inner, values[0])
            if found is not None:
                inside.append((*found, swapped))
        if inside:
            before, between, after, swapped = min(inside, key=lambda entry: entry[2][0].call)
            outer_values = conflict.second if swapped else conflict.first
            inner_values = conflict.first if swapped else conflict.second
            return self._three(before, between, after, outer_values, inner_values)
        return self._four(one, two, conflict)

    def _three(
        self, before: Placed | None, between: Placed, after: Placed, outer: list[Any], inner: list[Any]
    ) -> Witness:
        """One operation on another chain came wholly between two operations of a chain."""
        witness = Witness()
        last, last_rank = after
        middle = between[0]
        witness.add(last, f"began after {phrase(middle)} had returned")
        began = "" if before is None else f"began after {phrase(before[0])} had returned, and "
        witness.add(middle, f"{began}returned before {phrase(last)} began")
        ranks = [last_rank] if before is None else [before[1], last_rank]
        if before is not None:
            witness.add(before[0], f"had returned before {phrase(middle)} began")
        path = self._link(witness, outer, [0, last_rank] if before is None else ranks)
        self._link(witness, inner, [between[1]])
        this = f"this {_name(last)}"
        if before is None:
            middle_part = f"although {phrase(middle)} had returned before {this} began"
        else:
            middle_part = (
                f"although {phrase(middle)} came after {phrase(before[0])} and had returned before {this} began"
            )
        reasons = [self._only(path[0])]
        if last.kind == "cas":
            path = path[:-1]  # the last step is what the operation claims
        if len(path) > 1:
            reasons.append(f"{self._steps(path)} followed each other by compare-and-set, with nothing between")
        if middle.kind == "read":
            reasons.append(self._only(inner[between[1] // 2]))
        witness.sentence = f"{claim(last)}, {middle_part}; {several(reasons)}."
        return witness

    def _four(self, one: list[Placed], two: list[Placed], conflict: Conflict) -> Witness:
        """Each of two chains shows itself before and after the other."""
        witness = Witness()
        end_one, end_two = _first_to_return(one), _first_to_return(two)
        late_two = min((entry for entry in two if entry[0].call > end_one[0].end), key=_by_call)
        late_one = min((entry for entry in one if entry[0].call > end_two[0].end), key=_by_call)
        for early, late in ((end_one, late_two), (end_two, late_one)):
            witness.add(early[0], f"had returned before {phrase(late[0])} began")
            witness.add(late[0], f"began after {phrase(early[0])} had returned")
        self._link(witness, conflict.first, [end_one[1], late_one[1]])
        self._link(witness, conflict.second, [end_two[1], late_two[1]])
        values = [conflict.first[late_one[1] // 2], conflict.second[late_two[1] // 2]]
        first, second = map(self._show, values)
        reasons = [self._only(conflict.first[0]), self._only(conflict.second[0])]
        witness.sentence = (
            f"{first} had to come before {second}, because {phrase(end_one[0])} had returned before "
            f"{phrase(late_two[0])} began; and {second} before {first}, because {phrase(end_two[0])} had returned "
            f"before {phrase(late_one[0])} began; {several(reasons)}."
        )
        return witness


def _by_call(entry: Placed) -> int:
    return entry[0].call


def _first_to_return(chain: list[Placed]) -> Placed:
    return min(chain, key=lambda entry: entry[0].end)


def _name(operation: Operation) -> str:
    return "compare-and-set" if operation.invocation.f == "cas" else operation.invocation.f


def _needs(operation: Operation) -> str:
    return f"the only operation that wrote {written(operation)}, and it needed {observed(operation)} before"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _out_of_order(placed: list[Placed]) -> tuple[Placed, Placed]:
    """(b, a): b returned before a was called, although a has the lower rank; the two closest in rank that come first.

    Parameters:
        placed: the operations of a chain that contradicts itself, in order of rank.
    """
    high = -1  # greatest call of the ranks before the present one
    rank_calls = -1  # greatest call of the present rank
    rank = -1
    for number, (operation, its_rank) in enumerate(placed):
        if its_rank != rank:
            high, rank, rank_calls = max(high, rank_calls), its_rank, -1
        rank_calls = max(rank_calls, operation.call)
        if operation.end < high:
            earlier = [entry for entry in placed[:number] if entry[1] < its_rank and entry[0].call > operation.end]
            nearest = max(entry[1] for entry in earlier)
            return (operation, its_rank), min((entry for entry in earlier if entry[1] == nearest), key=_by_call)
    raise AssertionError("this chain is in order")


def _sandwich(outer: list[Placed], inner: list[Placed], root: Any) -> tuple[Placed | None, Placed, Placed] | None:
    """(a, b, c): a and c of the outer chain, and b of the inner one wholly between. For the initial value a is None.

    Returns:
        The first such three to be seen, or None.
    """
    before = None if root is INITIAL else _first_to_return(outer)
    start = -1 if before is None else before[0].end
    inside = [entry for entry in inner if entry[0].call > start]
    if not inside:
        return None
    between = _first_to_return(inside)
    later = [entry for entry in outer if entry[0].call > between[0].end]
    if not later:
        return None
    if before is None:
        return None, between, min(later, key=lambda entry: (entry[1] // 2, entry[0].call))
    earlier = [entry for entry in outer if entry[0].end < between[0].call]
    before, after = _closest(earlier, later)
    return before, between, after


def _closest(earlier: list[Placed], later: list[Placed]) -> tuple[Placed, Placed]:
    """One of each, with the fewest steps of the chain between their values; writers first, then whoever was first."""
    first_of: dict[int, Placed] = {}
    for entry in earlier:
        first_of.setdefault(entry[1] // 2, entry)  # in order of rank: a value's writer comes before its reads
    numbers = sorted(first_of)
    best: tuple[int, int, Placed, Placed] | None = None
    for entry in later:
        number = entry[1] // 2
        place = bisect_left(numbers, number)
        for near in numbers[max(0, place - 1) : place + 1]:
            ranked = (abs(near - number), entry[0].call, first_of[near], entry)
            if best is None or ranked[:2] < best[:2]:
                best = ranked
    if best is None:
        raise AssertionError("there is at least one of each")
    return best[2], best[3]
