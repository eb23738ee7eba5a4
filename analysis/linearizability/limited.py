"""The check in a process of its own, so that whatever it meets it ends in time and within its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from raftbed.analysis.limits import Send, run_limited
from raftbed.analysis.linearizability.budget import resident_memory
from raftbed.analysis.linearizability.checker import Counts, Progress, Result, check, combine, stopped
from raftbed.model import VALID, Op, Verdict

DEFAULT_TIME_LIMIT: Final = 60.0
"""Seconds."""

DEFAULT_MEMORY_LIMIT: Final = 2 << 30
"""Bytes that the check may take beyond the history itself."""

_BATCH: Final = 1000


def check_limited(
    ops: Sequence[Op],
    model: str | None = None,
    *,
    time_limit: float | None = DEFAULT_TIME_LIMIT,
    memory_limit: int | None = DEFAULT_MEMORY_LIMIT,
    progress: Callable[[Progress], None] | None = None,
) -> Verdict:
    """`check` in a child process that is killed when it does not keep to its limits by itself.

    What had been decided by then counts: a key already found invalid makes the verdict invalid; else it is unknown,
    and names the key that was being worked on and the limit.

    Parameters:
        ops: the history's events, in order.
        model: as for `check`.
        time_limit: seconds.
        memory_limit: bytes, beyond what the process starts with.
        progress: as for `check`; called in this process.

    Raises:
        HistoryError: as for `check`.
        UsageError: as for `check`.
        ChildFailedError: the child died of something other than a limit.
    """
    state = _State(progress)
    outcome = run_limited(
        _check_and_tell,
        ops,
        model,
        time_limit,
        memory_limit,
        time_limit=time_limit,
        memory_limit=memory_limit,
        receive=state.receive,
    )
    if outcome.hit is None:
        verdict: Verdict = outcome.value
        return verdict
    if state.key is not None:
        state.results[state.key] = stopped(outcome.hit)
    limits = {"time": time_limit, "memory": memory_limit, "hit": outcome.hit, "key": state.key}
    return combine(state.model or model, state.results, counts=state.counts, limits=limits)


class _State:
    """What the child has told so far."""

    def __init__(self, progress: Callable[[Progress], None] | None) -> None:
        self.model: str | None = None
        self.counts = Counts()
        self.results: dict[str, Result] = {}
        self.key: str | None = None
        self._progress = progress

    def receive(self, batch: Sequence[Progress]) -> None:
        """Take in what the child told."""
        for entry in batch:
            self.model, self.counts = entry.model, entry.counts
            if entry.event == "searching":
                self.key = entry.key
            elif entry.result is not None:
                self.results[entry.key] = entry.result
                self.key = None
            if self._progress is not None:
                self._progress(entry)


def _check_and_tell(
    send: Send, ops: Sequence[Op], model: str | None, time_limit: float | None, memory_limit: int | None
) -> Verdict:
    """Runs in the child."""
    batch: list[Progress] = []

    def tell(entry: Progress) -> None:
        batch.append(entry)
        # What the search for the next key, which may be the last, must not take with it goes out before it begins.
        if entry.result is None or entry.result["validity"] != VALID or len(batch) >= _BATCH:
            send(batch)
            batch.clear()

    # The child's resident memory includes what it shares with its parent.
    ceiling = None if memory_limit is None else memory_limit + resident_memory()
    verdict = check(ops, model, time_limit=time_limit, memory_limit=ceiling, progress=tell)
    limits = {**verdict.details["limits"], "memory": memory_limit}
    return replace(verdict, details={**verdict.details, "limits": limits})
