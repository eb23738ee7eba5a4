"""The ``check`` and ``report`` commands' work: from paths to verdicts and pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raftbed.analysis.checks import run_checks
from raftbed.console import Console
from raftbed.errors import StoreError, UsageError
from raftbed.record import read_history
from raftbed.store import Results, RunDirectory, Store


@dataclass(frozen=True, slots=True)
class Limits:
    """What checks may take.

    Attributes:
        time: seconds.
        memory: bytes.
    """

    time: float = 60.0
    memory: int = 4 << 30


def check_path(path: Path, *, model: str | None, limits: Limits) -> Results:
    """Check a run directory, or a history file by linearizability alone.

    Raises:
        UsageError: there is nothing at `path`.
        HistoryError: it is not a history.
        StoreError: it is a directory, but not of a run.
    """
    try:
        is_directory, exists = path.is_dir(), path.exists()
    except OSError as error:  # below a directory that is closed to us
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}.") from error
    if is_directory:
        return check_run(RunDirectory(path.resolve()), model=model, limits=limits)
    if not exists:
        raise UsageError(f"{path}: there is no such file.", remedy="Name a history (.jsonl) or a run directory.")
    from raftbed.analysis.linearizability import check_limited

    _, ops = read_history(path)
    verdict = check_limited(ops, model, time_limit=limits.time, memory_limit=limits.memory)
    return Results(str(path), verdict.validity, (verdict,))


def check_run(
    run: RunDirectory, *, limits: Limits, model: str | None = None, warn: Callable[[str], None] | None = None
) -> Results:
    """Judge a run by the checks that its plan names, and keep the results in its directory.

    Results that cannot be kept there, of somebody else's run or on a full disk, are returned all the same: what was
    found out is worth more than its file.

    Parameters:
        run: which.
        limits: what the checks may take.
        model: of its objects; None: from the operations.
        warn: is told when the results cannot be kept; None: standard error is.

    Raises:
        StoreError: it is not a run directory.
    """
    names = run.plan().checks
    results = run_checks(run, names, model=model, time_limit=limits.time, memory_limit=limits.memory)
    try:
        run.write_results(results)
    except StoreError as error:
        (warn or Console().warn)(f"The verdict is not kept: {error}")
    return results


def run_directory(path: Path | None, store: Path) -> RunDirectory:
    """The run at `path`, or the latest of the store.

    Raises:
        StoreError: there is none.
    """
    run = RunDirectory(path.resolve()) if path is not None else Store(store).latest()
    run.manifest()
    return run


def write_report(run: RunDirectory) -> Path:
    """Write the report of a run; returns its path."""
    from raftbed.analysis import report

    return report.write_report(run)
