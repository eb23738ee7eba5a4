"""Exact search for an order of any operations on one object: just-in-time linearization, breadth first.

Theory of operation
-------------------
The history is read event by event. A *configuration* is one way in which the operations so far may have taken
effect; all configurations that matter are kept side by side. An operation is given its place only when it must have
one, at its return (Lowe, "Testing for linearizability", 2017): each configuration in which it has no place yet is
replaced by those that a sequence of open operations, ending with it, can reach. When none is left, the history is
not linearizable, and the operation that returned is where it shows.

What keeps the configurations few (the object has *setters*, which put a value whatever was there, and
*transformers*, which make a new value from the present one; a compare-and-set is a transformer that works on one
value only):

* Reads take effect as soon as the value is right; it never hurts, for they change nothing.
* A setter overwrites. Whatever open setter, or append, is not observed can stand *hidden*, directly before another
  setter that takes its place while it is open. So a setter with an obligation to happen is, once any other setter
  took its place after its call, free: it may still be used for its value until it returns, but need not be.
* Thus a configuration is (value; available: operations that may still be used; owed: operations that must happen
  before they return). One with the same value, more available and less owed is at least as good: others that it
  dominates are dropped. (For compare-and-set, available and owed go together, so such sets are only compared when
  equal.)
* Of operations that do the same, the one that returns first goes first, those that are pending last and in order of
  their call. Exchanging two such operations in an order never breaks it.
* Values that nobody observes are one value.

Three searches use this. A *beam* keeps only the most promising configurations: if one survives, the history is
linearizable; if none does, a wider beam may still find one. A *relaxation* never uses up what is available: it
allows more, so if no configuration survives, the history is not linearizable. The exact search keeps everything,
and is bounded by its budget only.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final, Literal

from raftbed.analysis.linearizability.budget import Budget
from raftbed.analysis.linearizability.operations import Operation

Configuration = tuple[Any, int, int]
"""(value, available, owed); the latter two are sets of slots, as bits."""

UNOBSERVED: Final = ("unobserved",)
"""Token that stands for every value that nobody observes."""

Mode = Literal["exact", "beam", "relaxed"]

_CHECK_EVERY = 256
_PARETO_AT_MOST = 400


@dataclass(frozen=True, slots=True)
class Stuck:
    """Where no configuration was left.

    Attributes:
        operation: the operation whose return no order explains.
        values: values that the object could have had just before its return.
        concurrent: other operations that were open at that moment.
    """

    operation: Operation
    values: list[Any]
    concurrent: list[Operation]


@dataclass(slots=True)
class _Class:
    """Open operations that do the same, in the order in which they are to be used."""

    order: list[tuple[int, int, int]] = field(default_factory=list)
    """(end, call, bit) of each"""
    mask: int = 0

    def add(self, operation: Operation, bit: int) -> None:
        self.order.append((operation.end, operation.call, bit))
        self.order.sort()
        self.mask |= bit

    def remove(self, bit: int) -> None:
        self.order = [entry for entry in self.order if entry[2] != bit]
        self.mask &= ~bit

    def first(self, among: int) -> int:
        """The bit to use of those available."""
        for _end, _call, bit in self.order:
            if among & bit:
                return bit
        return 0


class Search:
    """One pass over the operations on one object.

    Parameters:
        operations: in order of call; reads without an answer left out.
        initial: the object's value at first.
        budget: when to give up.
        mode: "exact", "beam" or "relaxed"; see the theory above.
        width: how many configurations a beam keeps, about.
        depth: from how many configurations a beam goes on, when it looks for the place of one operation in one
            configuration; those reached by few operations come first.
        look_ahead: give up a string at once that cannot become what a later read returns. This saves much, but then
            `stuck` may name an operation before that read.

    Attributes:
        stuck: after `run` returned False: where.
        complete: whether no configuration was left out, so that the answer of `run` is exact.
        widest: the largest number of configurations that there were.
    """

    def __init__(
        self,
        operations: list[Operation],
        initial: Any,
        budget: Budget,
        mode: Mode = "exact",
        width: int = 0,
        depth: int = 0,
        look_ahead: bool = True,
    ) -> None:
        self._operations = operations
        self._budget = budget
        self._relaxed = mode == "relaxed"
        self._width = width if mode == "beam" else 0
        self._depth = depth if mode == "beam" else sys.maxsize
        self._appending = any(operation.kind == "append" for operation in operations)
        self._targets = _Targets(operations) if self._appending and look_ahead else None
        self._setters: dict[Any, _Class] = {}
        self._transformers: dict[Any, dict[Any, _Class]] = {}
        self._reads: dict[Any, int] = {}
        self._hideable = 0
        self._available = 0
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._used_slots = 0
        self._steps = 0
        self._now = -1
        self.configurations: list[Configuration] = [(initial, 0, 0)]
        self.stuck: Stuck | None = None
        self.widest = 1
        self.complete = mode != "relaxed"

    def run(self) -> bool:
        """Whether an order exists; for a beam False means "not found", for a relaxation True means "maybe".

        Raises:
            OutOfBudgetError: time or memory ran out.
        """
        for position, number, is_call in _events(self._operations):
            operation = self._operations[number]
            self._now = position
            if is_call:
                self._call(number, operation)
            elif not self._return(number, operation):
                return False
        return True

    # Events

    def _call(self, number: int, operation: Operation) -> None:
        if self._free:
            bit = self._free.pop()
        else:
            bit = 1 << self._used_slots
            self._used_slots += 1
        self._slots[number] = bit
        kind = operation.kind
        if kind == "read":
            value = operation.old
            self._reads[value] = self._reads.get(value, 0) | bit
            self.configurations = [
                config if config[0] == value else (config[0], config[1], config[2] | bit)
                for config in self.configurations
            ]
            return
        self._class_of(operation).add(operation, bit)
        owed = 0 if operation.pending else bit
        if kind != "cas":
            self._hideable |= owed
        self._available |= bit
        available = 0 if self._relaxed else bit
        self.configurations = [(value, a | available, b | owed) for value, a, b in self.configurations]

    def _class_of(self, operation: Operation) -> _Class:
        if operation.kind == "write":
            return self._setters.setdefault(operation.new, _Class())
        return self._transformers.setdefault(operation.old, {}).setdefault(operation.new, _Class())

    def _return(self, number: int, operation: Operation) -> bool:
        """Bring every configuration to where the operation has its place; False when none can be."""
        bit = self._slots.pop(number)
        before = self.configurations
        after: set[Configuration] = set()
        for config in before:
            if not config[2] & bit:
                after.add(config)
                if operation.kind == "read" or not (self._relaxed or config[1] & bit):
                    continue
            self._expand(config, bit, operation, after)
        if not after:
            self.stuck = self._stuck_at(operation, before)
            return False
        self._forget(operation, bit)
        keep = ~bit
        cleared = {(value, a & keep, b) for value, a, b in after}
        self.configurations = self._pruned(cleared)
        self.widest = max(self.widest, len(self.configurations))
        return True

    def _forget(self, operation: Operation, bit: int) -> None:
        self._free.append(bit)
        if operation.kind == "read":
            self._reads[operation.old] &= ~bit
            return
        self._available &= ~bit
        self._hideable &= ~bit
        group = self._class_of(operation)
        group.remove(bit)
        if not group.mask:
            if operation.kind == "write":
                del self._setters[operation.new]
            else:
                del self._transformers[operation.old][operation.new]

    # Steps

    def _expand(self, start: Configuration, goal: int, operation: Operation, found: set[Configuration]) -> None:
        """Add the configurations that sequences of open operations reach and in which the goal has its place.

        Such a sequence ends when the operation is no longer owed. An operation that is not owed, or has just become
        hidden, may also be used for its value, and this is the last chance: then the sequence ends with it.
        """
        own = None if operation.kind == "read" else self._class_of(operation)
        queue = deque([(start, True)])
        seen = set(queue)
        while queue:
            config, productive = queue.popleft()
            self._steps += 1
            if self._steps % _CHECK_EVERY == 0:
                self._budget.check()
            owed = config[2] & goal
            for after, served, used in self._steps_from(config, productive):
                if self._targets is not None and not self._targets.possible(after[0], self._now):
                    continue
                step = (after, served)
                if used is own:
                    found.add(after)
                    continue
                if owed and not after[2] & goal:
                    found.add(after)
                    if own is None:
                        continue
                if step not in seen:
                    seen.add(step)
                    if len(seen) <= self._depth:
                        queue.append(step)
                    else:
                        self.complete = False

    def _steps_from(self, config: Configuration, productive: bool) -> Iterator[tuple[Configuration, bool, _Class]]:
        """What one more operation makes of a configuration, whether that served any that was owed, and its class.

        A value that was set up, and neither read nor transformed, served nothing: no setter needs to follow it.
        """
        value, available, owed = config
        usable = self._available if self._relaxed else available
        reads = self._reads
        for old in (value, None) if self._appending else (value,):
            groups = self._transformers.get(old)
            if not groups:
                continue
            for operand, group in groups.items():
                if not usable & group.mask:
                    continue
                bit = (group.first(owed) or group.first(usable)) if self._relaxed else group.first(usable)
                new = value + operand if self._appending else operand
                rest = owed & ~bit & ~reads.get(new, 0)
                served = owed & ~self._hideable != rest & ~self._hideable
                yield (new, available & ~bit, rest), served, group
        if not productive:
            return
        for new, group in self._setters.items():
            if usable & group.mask:
                rest = owed & ~self._hideable & ~reads.get(new, 0)
                served = owed & ~self._hideable != rest
                yield (new, available & ~group.first(usable), rest), served, group

    # Pruning

    def _pruned(self, configurations: set[Configuration]) -> list[Configuration]:
        if len(configurations) == 1:
            return list(configurations)
        by_value: dict[Any, list[Configuration]] = {}
        for config in configurations:
            by_value.setdefault(config[0], []).append(config)
        # Each value gets its share of a beam: which value turns out to be the right one cannot be seen in advance.
        share = max(1, self._width // len(by_value))
        kept: list[Configuration] = []
        for group in by_value.values():
            best = _undominated(group) if 1 < len(group) <= _PARETO_AT_MOST else group
            if self._width and len(best) > share:
                best.sort(key=lambda config: (config[2].bit_count() - config[1].bit_count(), config[1], config[2]))
                del best[share:]
                self.complete = False
            kept += best
        return kept

    def _stuck_at(self, operation: Operation, before: list[Configuration]) -> Stuck:
        values: list[Any] = []
        for value, _available, _owed in before:
            if value not in values:
                values.append(value)
        concurrent = [self._operations[number] for number in self._slots]
        return Stuck(operation, values, concurrent)


def _undominated(group: list[Configuration]) -> list[Configuration]:
    """Those of one value that no other one dominates."""
    group.sort(key=lambda config: config[2].bit_count() - config[1].bit_count())
    kept: list[Configuration] = []
    for config in group:
        _value, available, owed = config
        for _other, more, less in kept:
            if available & ~more == 0 and less & ~owed == 0:
                break
        else:
            kept.append(config)
    return kept


def _events(operations: list[Operation]) -> list[tuple[int, int, bool]]:
    """(position, number of the operation, whether it is its call), in order of position."""
    events = [(operation.call, number, True) for number, operation in enumerate(operations)]
    events += [(operation.end, number, False) for number, operation in enumerate(operations) if not operation.pending]
    events.sort()
    return events


class _Targets:
    """Which strings can still become what later reads return: between two puts a string only grows.

    Parameters:
        operations: the operations on one string.
    """

    def __init__(self, operations: list[Operation]) -> None:
        reads = sorted((op for op in operations if op.kind == "read"), key=lambda op: op.call)
        self._calls = [op.call for op in reads]
        self._next: list[Operation | None] = [None] * (len(reads) + 1)
        for number in range(len(reads) - 1, -1, -1):
            later = self._next[number + 1]
            self._next[number] = reads[number] if later is None or reads[number].end < later.end else later
        puts = sorted((op.call, op.end) for op in operations if op.kind == "write")
        self._put_calls = [call for call, _end in puts]
        self._latest_put_end = list(accumulate((end for _call, end in puts), max, initial=-1))

    def possible(self, value: str, now: int) -> bool:
        """Whether, of the reads that begin after now, the one that returns first can still return what it did."""
        read = self._next[bisect_right(self._calls, now)]
        if read is None:
            return True
        if self._latest_put_end[bisect_right(self._put_calls, read.end)] >= now:
            return True  # a put is open, or begins before the read returns: it may begin the string anew
        return bool(read.old.startswith(value))
