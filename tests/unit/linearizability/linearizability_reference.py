"""What the tests compare with: a definition of linearizability that can be read in one minute, and random histories."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raftbed.model import Op

_START: dict[str, Any] = {"register": None, "cas-register": None, "kv-append": ""}


def apply(f: str, value: Any, result: Any, state: Any) -> tuple[bool, Any]:
    """Whether the operation may happen in this state and return that result; and the state afterwards."""
    if f in ("read", "get"):
        return (result or "" if f == "get" else result) == state, state
    if f in ("write", "put"):
        return True, value
    if f == "append":
        return True, state + value
    return state == value[0], value[1]


def linearizable(events: Sequence[Op], model: str) -> bool:
    """Herlihy and Wing's definition, tried out: is there an order of the operations on each key that fits?"""
    keys = {op.key for op in events}
    return all(_one_key([op for op in events if op.key == key], model) for key in keys)


def _one_key(events: Sequence[Op], model: str) -> bool:
    operations: list[list[Any]] = []  # [call, return or None, f, argument, result]
    open_calls: dict[Any, list[Any]] = {}
    for position, op in enumerate(events):
        if op.type == "invoke":
            open_calls[op.process] = [position, None, op.f, op.value, None]
            operations.append(open_calls[op.process])
            continue
        operation = open_calls.pop(op.process)
        if op.type == "fail":
            operations.remove(operation)
        elif op.type == "ok":
            operation[1], operation[4] = position, op.value
    tried: set[tuple[frozenset[int], Any]] = set()

    def extend(left: frozenset[int], state: Any) -> bool:
        if all(operations[i][1] is None for i in left):
            return True
        if (left, state) in tried:
            return False
        tried.add((left, state))
        earliest = min(operations[i][1] for i in left if operations[i][1] is not None)
        for i in left:
            call, end, f, value, result = operations[i]
            if call > earliest or (end is None and f in ("read", "get")):
                continue
            fits, after = apply(f, value, result, state)
            if fits and extend(left - {i}, after):
                return True
        return False

    return extend(frozenset(range(len(operations))), _START[model])


@dataclass(slots=True)
class _Running:
    """An operation that was invoked and did not end yet."""

    process: int
    f: str
    key: str
    value: Any
    happened: bool = False
    fits: bool = True
    result: Any = None


class RandomHistory:
    """The history of a real object, whose answers are now and then replaced by others.

    Parameters:
        rng: decides everything.
        model: name of the model.
        operations: how many.
        processes: how many run at once.
        values: how many different values are written; 0 makes every one unique.
        keys: how many objects.
        pending: share of the operations that never end; half of them take effect.
        failed: share of the writes that fail, without effect.
        lies: share of the observations that are replaced by a value written somewhere, or by one never written.
        nulls: share of the writes that write null.
    """

    def __init__(
        self,
        rng: random.Random,
        model: str,
        *,
        operations: int,
        processes: int,
        values: int = 0,
        keys: int = 1,
        pending: float = 0.2,
        failed: float = 0.1,
        lies: float = 0.2,
        nulls: float = 0.0,
    ) -> None:
        self.rng, self.model, self.values, self.keys = rng, model, values, keys
        self.pending, self.failed, self.lies, self.nulls = pending, failed, lies, nulls
        self.left, self.started = operations, 0
        self.idle, self.fresh = list(range(processes)), processes
        self.state: dict[str, Any] = {}
        self.written: list[Any] = [_START[model]]
        self.running: list[_Running] = []
        self.events: list[Op] = []

    def make(self) -> list[Op]:
        """The events."""
        while self.left or self.running:
            moves = [self._start] * (2 if self.left and self.idle else 0)
            moves += [self._let_happen, self._end] if self.running else []
            self.rng.choice(moves)()
        return self.events

    def _note(self, op: _Running, kind: str, value: Any) -> None:
        number = len(self.events)
        self.events.append(Op(number, 1000 * number, kind, op.process, op.f, op.key, value))

    def _start(self) -> None:
        rng = self.rng
        self.left -= 1
        self.started += 1
        key = f"k{rng.randrange(self.keys)}"
        new: Any = rng.randrange(self.values) if self.values else self.started
        functions = {"register": "read write", "cas-register": "read write cas"}
        f = rng.choice(functions.get(self.model, "get get put append append").split())
        if self.model != "kv-append" and self.nulls and rng.random() < self.nulls:
            new = None
        elif self.model == "kv-append":
            new = chr(ord("a") + new)
        value = None if f in ("read", "get") else new
        if f == "cas":
            value = [self.state.get(key) if rng.random() < 0.7 else rng.choice(self.written), new]
        if f not in ("read", "get"):
            self.written.append(new)
        op = _Running(self.idle.pop(rng.randrange(len(self.idle))), f, key, value)
        self.running.append(op)
        self._note(op, "invoke", value)

    def _let_happen(self) -> None:
        self._happen(self.rng.choice(self.running))

    def _happen(self, op: _Running) -> None:
        if op.happened:
            return
        op.happened = True
        op.result = self.state.get(op.key, _START[self.model])
        op.fits, after = apply(op.f, op.value, op.result, op.result)
        if op.fits:
            self.state[op.key] = after

    def _end(self) -> None:
        rng = self.rng
        op = self.running.pop(rng.randrange(len(self.running)))
        if rng.random() < self.pending:
            if rng.random() < 0.5:
                self._happen(op)
            if rng.random() < 0.5:
                self._note(op, "info", op.value)
            self.idle.append(self.fresh)
            self.fresh += 1
            return
        self.idle.append(op.process)
        reads = op.f in ("read", "get")
        if not reads and not op.happened and rng.random() < self.failed:
            self._note(op, "fail", op.value)
            return
        self._happen(op)
        if reads:
            self._note(op, "ok", self._lie(op.result) if rng.random() < self.lies else op.result)
        else:
            self._note(op, "ok" if op.fits or rng.random() < self.lies else "fail", op.value)

    def _lie(self, truth: Any) -> Any:
        rng = self.rng
        if self.model != "kv-append":
            return rng.choice([*self.written, 99])
        other = rng.choice([*self.written, "zz"])
        return rng.choice([other, truth[:-1], truth + other])


def random_history(rng: random.Random, model: str | None = None) -> list[Op]:
    """A small history of random shape, of a random model unless one is given."""
    return RandomHistory(
        rng,
        model or rng.choice(["register", "cas-register", "cas-register", "kv-append"]),
        operations=rng.randrange(2, 11),
        processes=rng.randrange(1, 6),
        values=rng.choice([0, 0, 2, 3, 4]),
        keys=rng.choice([1, 1, 2]),
        pending=rng.choice([0, 0.2, 0.5]),
        lies=rng.choice([0, 0.1, 0.3]),
        nulls=rng.choice([0, 0.1]),
    ).make()


def wild_history(rng: random.Random) -> list[Op]:
    """Operations that no object did: unique values, and answers, fates and times at random.

    Nearly all are violations, of every kind, and many in long chains and circles of compare-and-sets, which the history
    of a real object hardly ever has.
    """
    values = list(range(1, rng.randrange(2, 12)))
    reads = rng.randrange(4)
    straying, pending = rng.choice([0, 0, 0.1, 0.5]), rng.choice([0, 0.3, 0.7, 1])
    writes = rng.choice([0, 0.1, 0.5])
    ends: list[tuple[float, str, int, str, str, Any]] = []
    for process in range(len(values) + reads):
        key = "k" if rng.random() < 0.97 else "other"
        if process < len(values):
            before = values[process - 1] if rng.random() >= straying else rng.choice([None, 99, *values])
            f, value = "cas", [before, values[process]]
            if rng.random() < writes:
                f, value = "write", values[process]
            fate = rng.choice(["info", "none"]) if rng.random() < pending else "ok" if rng.random() < 0.95 else "fail"
            asked, told = value, value
        else:
            f, asked, told, fate = "read", None, rng.choice([None, 99, *values, *values]), "ok"
        call, end = sorted((rng.random(), rng.random() + rng.choice([0, 1])))
        ends.append((call, "invoke", process, f, key, asked))
        if fate != "none":
            ends.append((end, fate, process, f, key, told))
    ends.sort(key=lambda event: event[0])
    return [
        Op(index, 1000 * index, kind, process, f, key, value)
        for index, (_time, kind, process, f, key, value) in enumerate(ends)
    ]
