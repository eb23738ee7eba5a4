"""What the tests compare with: a definition of linearizability that can be read in one minute, and random histories."""

from __future__ import annotations

import random
from collections.abc import Sequence
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


def random_history(
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
) -> list[Op]:
    """A history of a real object, whose answers are now and then replaced by others.

    Parameters:
        values: how many different values are written; 0 makes every one unique.
        pending: share of the operations that never end; half of them take effect.
        failed: share of the writes that fail (without effect).
        lies: share of the observations that are replaced by a value written somewhere, or by one never written.
    """
    state: dict[str, Any] = {}
    written: list[Any] = [_START[model]]
    events: list[Op] = []
    busy: dict[int, dict[str, Any]] = {}
    idle = list(range(processes))
    started = 0
    fresh = processes

    def note(op: dict[str, Any], kind: str, value: Any) -> None:
        events.append(Op(len(events), 1000 * len(events), kind, op["process"], op["f"], op["key"], value))

    def take_effect(op: dict[str, Any]) -> None:
        if op["done"]:
            return
        op["done"] = True
        now = state.get(op["key"], _START[model])
        op["fits"], after = apply(op["f"], op["value"], now, now)
        op["result"] = now
        if op["fits"]:
            state[op["key"]] = after

    while started < operations or busy:
        moves = ["start"] * (2 if started < operations and idle else 0) + ["effect", "end"] * bool(busy)
        move = rng.choice(moves)
        if move == "start":
            started += 1
            process = idle.pop(rng.randrange(len(idle)))
            key = f"k{rng.randrange(keys)}"
            fresh_value: Any = started if values == 0 else rng.randrange(values)
            names = {"register": ["read", "write"], "cas-register": ["read", "write", "cas"]}
            f = rng.choice(names.get(model, ["get", "get", "put", "append", "append"]))
            if model == "kv-append":
                fresh_value = "abcdefghijklmnopqrstuvwxyz"[fresh_value]
            value: Any = None if f in ("read", "get") else fresh_value
            if f == "cas":
                old = state.get(key) if rng.random() < 0.7 else rng.choice(written)
                value = [old, fresh_value]
            if value is not None:
                written.append(fresh_value)
            op = {"process": process, "f": f, "key": key, "value": value, "done": False, "fits": True, "result": None}
            busy[process] = op
            note(op, "invoke", value)
            continue
        process = rng.choice(list(busy))
        op = busy[process]
        if move == "effect":
            take_effect(op)
            continue
        del busy[process]
        if rng.random() < pending:
            if rng.random() < 0.5:
                take_effect(op)
            if rng.random() < 0.5:
                note(op, "info", op["value"])
            idle.append(fresh)
            fresh += 1
            continue
        idle.append(process)
        if op["f"] not in ("read", "get") and not op["done"] and rng.random() < failed:
            note(op, "fail", op["value"])
            continue
        take_effect(op)
        if op["f"] in ("read", "get"):
            result = op["result"]
            if rng.random() < lies:
                result = rng.choice([*written, "zz" if model == "kv-append" else 99])
                if model == "kv-append":
                    result = rng.choice([result, op["result"][:-1], op["result"] + result])
            note(op, "ok", result)
        else:
            note(op, "ok" if op["fits"] or rng.random() < lies else "fail", op["value"])
    return events
