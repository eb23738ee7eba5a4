"""How long the linearizability check takes. Prints a table; run it as `python benchmarks/linearizability.py`.

The rows with "unique" are decided in near-linear time; those with "0..4" need the exact search. Histories are made by
a simulated register, so that they are linearizable; in "stale" ones the last read returns the initial value.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass, replace
from typing import Any

from raftbed.analysis.linearizability import check_limited
from raftbed.model import Op


@dataclass(frozen=True, slots=True)
class Shape:
    """What a history looks like."""

    operations: int
    keys: int
    clients: int
    pending: float
    unique: bool
    stale: bool


SHAPES = [
    Shape(1_000, 10, 10, 0.01, True, False),
    Shape(100_000, 1, 50, 0.05, True, False),
    Shape(100_000, 1, 50, 0.05, True, True),
    Shape(100_000, 100, 50, 0.05, True, False),
    Shape(10_000, 1, 10, 0.0, False, False),
    Shape(10_000, 1, 10, 0.0, False, True),
    Shape(10_000, 1, 10, 0.01, False, False),
    Shape(10_000, 1, 10, 0.05, False, False),
    Shape(100_000, 100, 50, 0.01, False, False),
]
LARGE = [Shape(1_000_000, 100, 50, 0.05, True, False), Shape(1_000_000, 100, 50, 0.05, True, True)]


def make(shape: Shape, seed: int = 0) -> list[Op]:
    """The history of registers that take effect somewhere between invocation and answer."""
    rng = random.Random(seed)
    state: dict[int, Any] = {}
    events: list[Op] = []
    running: dict[int, list[Any]] = {}
    idle = list(range(shape.clients))
    fresh, started = shape.clients, 0
    while started < shape.operations or running:
        if started < shape.operations and idle and rng.random() < 0.5:
            started += 1
            process, key = idle.pop(), rng.randrange(shape.keys)
            f = rng.choice(("read", "read", "write", "cas"))
            new = started if shape.unique else rng.randrange(5)
            value = {"read": None, "write": new, "cas": [state.get(key), new]}[f]
            events.append(Op(len(events), 1000 * len(events), "invoke", process, f, key, value))
            running[process] = [f, key, value, False, None]
        elif running:
            process = rng.choice(tuple(running))
            operation = running[process]
            f, key, value, happened, _result = operation
            if not happened:
                operation[3], operation[4] = True, state.get(key)
                if f == "write":
                    state[key] = value
                elif f == "cas" and operation[4] == value[0]:
                    state[key] = value[1]
                continue
            del running[process]
            if rng.random() < shape.pending:
                idle.append(fresh)
                fresh += 1
                continue
            idle.append(process)
            kind = "fail" if f == "cas" and operation[4] != value[0] else "ok"
            result = operation[4] if f == "read" else value
            events.append(Op(len(events), 1000 * len(events), kind, process, f, key, result))
    return _with_stale_read(events) if shape.stale else events


def _with_stale_read(events: list[Op]) -> list[Op]:
    """The last read returns the initial null, which was overwritten long before."""
    place, last = [(place, op) for place, op in enumerate(events) if op.type == "ok" and op.f == "read"][-1]
    events[place] = replace(last, value=None)
    return events


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", action="store_true", help="also a million operations (takes minutes to make)")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for each check")
    arguments = parser.parse_args()
    print(f"{'operations':>10} {'keys':>5} {'clients':>7} {'pending':>7} {'values':>7} {'':6} {'seconds':>8}  verdict")
    for shape in SHAPES + (LARGE if arguments.large else []):
        events = make(shape)
        start = time.perf_counter()
        verdict = check_limited(events, "cas-register", time_limit=arguments.time_limit, memory_limit=8 << 30)
        seconds = time.perf_counter() - start
        print(
            f"{shape.operations:>10} {shape.keys:>5} {shape.clients:>7} {shape.pending:>7.0%} "
            f"{'unique' if shape.unique else '0..4':>7} {'stale' if shape.stale else '':6} {seconds:>8.3f}  "
            f"{verdict.validity}",
            flush=True,
        )


if __name__ == "__main__":
    main()
