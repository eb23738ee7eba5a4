"""The nouns of raftbed: operation, fault, plan, verdict. A leaf: standard library only.

Times are integer nanoseconds since the start of the run, on the controller's monotonic clock, unless a name says
otherwise. Durations that a person writes (plans, command line) are seconds, as floats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, dataclass_transform

SECOND: Final = 1_000_000_000
"""Nanoseconds in a second."""

NEMESIS: Final = "nemesis"
"""The process that faults act under in a history."""

_T = TypeVar("_T")
OpType = Literal["invoke", "ok", "fail", "info"]
Validity = Literal["valid", "invalid", "unknown"]
FaultState = Literal["injected", "proved", "healed", "failed"]

VALID: Final = "valid"
INVALID: Final = "invalid"
UNKNOWN: Final = "unknown"

_SEVERITY: Final[Mapping[Validity, int]] = {VALID: 0, UNKNOWN: 1, INVALID: 2}


@dataclass_transform(frozen_default=True)
def often_made(kind: type[_T]) -> type[_T]:
    """A dataclass of which hundreds of thousands are made: nobody changes one, as type checkers see to.

    To have that enforced while it runs takes four times as long as all the rest of making one.
    """
    return dataclass(slots=True, unsafe_hash=True)(kind)


@often_made
class Op:
    """One event of a history: an operation was invoked, or came to an end.

    Attributes:
        index: position in the history, from 0.
        time: nanoseconds on the controller's monotonic clock.
        type: "invoke"; then "ok" (it happened), "fail" (it did not happen) or "info" (nobody knows).
        process: the logical process, one operation at a time; an integer for clients, "nemesis" for faults.
        f: what was done: "read", "write", "cas", ...
        key: the object it was done to; None where the model has a single object.
        value: argument or result; a read carries None when invoked; a cas carries [old, new].
        error: for fail and info, the reason as a short stable code, then detail.
        node: the node that was asked or that answered.
        client: the session under which a write was sent.
        serial: its number within the session.
    """

    index: int
    time: int
    type: OpType
    process: int | str
    f: str
    key: Any = None
    value: Any = None
    error: str | None = None
    node: str | None = None
    client: str | None = None
    serial: int | None = None


@dataclass(frozen=True, slots=True)
class FaultStep:
    """One planned fault of a schedule: what, to whom, from when to when. Data only; a schedule is a replay file.

    Attributes:
        id: names it within the run, "f01", "f02", ...
        kind: "partition", "kill", ...
        shape: its variety: "one", "halves", "majorities-ring", "leader-minority", "all", ...
        at: when to inject, in seconds after the clients start.
        until: when to heal, in seconds after the clients start; at most the run's time limit.
        order: the nodes in the order in which the shape takes them (a seeded permutation). Shapes that aim at
            the leader put whoever leads then first, which is found out at that moment.
        why: the situation that this step is there to create, in a few words.
        options: how strong it is, by name, where the simulator would draw that otherwise (docs/simulation.md).
    """

    id: str
    kind: str
    shape: str
    at: float
    until: float
    order: tuple[str, ...]
    why: str = ""
    options: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """One line of the fault ledger: a planned fault was injected, proved, healed, or failed to be.

    Attributes:
        time: nanoseconds since the start of the run.
        fault: id of the planned step.
        kind: as planned.
        shape: as planned.
        state: "injected" (the command went through), "proved" (a probe saw its effect), "healed" (a probe saw its
            end), "failed" (what went wrong stands in `detail["error"]`).
        nodes: the nodes that it acts on.
        detail: evidence and circumstances: grudge, mechanism, leader and term seen, probe results.
    """

    time: int
    fault: str
    kind: str
    shape: str
    state: FaultState
    nodes: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run is. Made once from test, plan file, command line and seed; recorded; replayable.

    Attributes:
        test: name of the test, "partition-test".
        system: what is under test, "raft".
        hosts: where it runs, "local".
        nodes: names of the nodes, n1 to nN.
        workload: name of the workload, "register".
        faults: kinds of fault that the schedule was made from.
        checks: names of the checks that judge the run.
        seed: the one number from which schedule and generators follow.
        time_limit: seconds during which clients work and faults strike.
        concurrency: number of client workers.
        rate: operations per second over all workers; 0 means as fast as they can.
        keys: number of keys that the workload uses.
        operation_timeout: seconds after which an operation without an answer is unknown.
        recovery_timeout: seconds that the cluster has after the final heal to serve again.
        bug: name of the planted bug, or None.
        node_options: configuration of the system under test (for Raft: the fields of its Config).
        schedule: the faults, in order of time.
        own_options: node to the options in which it departs from `node_options`; in simulations only.
        rare_points: the rare points of the core that are armed, with their chances; in simulations only.
    """

    test: str
    system: str
    hosts: str
    nodes: tuple[str, ...]
    workload: str
    faults: tuple[str, ...]
    checks: tuple[str, ...]
    seed: int
    time_limit: float
    concurrency: int
    rate: float
    keys: int
    operation_timeout: float
    recovery_timeout: float
    bug: str | None = None
    node_options: Mapping[str, Any] = field(default_factory=dict)
    schedule: tuple[FaultStep, ...] = ()
    own_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rare_points: Mapping[str, float] = field(default_factory=dict)

    def options_of(self, node: str) -> dict[str, Any]:
        """The configuration of one node."""
        return {**self.node_options, **self.own_options.get(node, {})}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check concluded.

    Attributes:
        checker: name of the check.
        validity: "valid", "invalid" or "unknown".
        summary: one plain sentence; for "unknown" it names the cause, for "invalid" what contradicts what.
        details: the evidence, JSON-serializable; each checker documents its own.
    """

    checker: str
    validity: Validity
    summary: str
    details: Mapping[str, Any] = field(default_factory=dict)


def worst(validities: Iterable[Validity]) -> Validity:
    """The verdict over several: invalid outranks unknown, unknown outranks valid; of none it is unknown."""
    return max(validities, key=_SEVERITY.__getitem__, default=UNKNOWN)
