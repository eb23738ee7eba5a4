"""The checks by name, and how a run directory is judged by several of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from raftbed.analysis import (
    availability,
    fault_coverage,
    liveness,
    message_storm,
    node_health,
    raft_invariants,
    statistics,
    synced_before_sent,
)
from raftbed.errors import RaftbedError
from raftbed.model import Verdict, worst
from raftbed.store import Results, RunDirectory

Check = Callable[[RunDirectory], Verdict]

LINEARIZABLE = "linearizable"
SIMPLE_CHECKS: Mapping[str, Check] = {
    availability.CHECKER: availability.check,
    statistics.CHECKER: statistics.check,
    node_health.CHECKER: node_health.check,
    fault_coverage.CHECKER: fault_coverage.check,
    liveness.CHECKER: liveness.check,
    message_storm.CHECKER: message_storm.check,
    synced_before_sent.CHECKER: synced_before_sent.check,
    raft_invariants.CHECKER: raft_invariants.check,
}


def run_checks(
    run: RunDirectory,
    names: Sequence[str],
    *,
    model: str | None = None,
    time_limit: float,
    memory_limit: int,
    isolated: bool = True,
) -> Results:
    """Judge a run by the checks named. A check that breaks is *unknown*, says why, and stops no other.

    Parameters:
        run: its directory; whatever is missing there is judged as far as it goes.
        names: of checks.
        model: for linearizability; None infers it.
        time_limit: seconds for the linearizability check.
        memory_limit: bytes for it.
        isolated: check linearizability in a process of its own. Without, its limits are kept less strictly; for those
            who check many small histories.
    """
    verdicts = tuple(_guarded(name, run, model, time_limit, memory_limit, isolated) for name in names)
    return Results(_name(run), worst(verdict.validity for verdict in verdicts), verdicts)


def _guarded(
    name: str, run: RunDirectory, model: str | None, time_limit: float, memory_limit: int, isolated: bool
) -> Verdict:
    try:
        if name == LINEARIZABLE and not isolated:
            from raftbed.analysis import linearizability

            return linearizability.check(run.history(), model, time_limit=time_limit)
        if name == LINEARIZABLE:
            from raftbed.analysis.linearizability import check_limited

            return check_limited(run.history(), model, time_limit=time_limit, memory_limit=memory_limit)
        if name in SIMPLE_CHECKS:
            return SIMPLE_CHECKS[name](run)
    except RaftbedError as error:
        return Verdict(name, "unknown", f"It could not be checked: {error}")
    except Exception as error:  # our own defect must not hide what the other checks found
        return Verdict(name, "unknown", f"The check broke: {type(error).__name__}: {error}")
    return Verdict(name, "unknown", f"There is no check {name!r}.")


def _name(run: RunDirectory) -> str:
    return f"{run.path.parent.name}/{run.path.name}"
