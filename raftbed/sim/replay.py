"""Schedule files: a violation, kept so that it can be repeated, and made smaller.

A file holds the plan with its schedule spelled out, what was found, the hash of the trace and, after shrinking, the
operations one by one. The same version repeats it to the byte; another version shows whether the violation is still
there.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from raftbed import __version__
from raftbed.analysis.checks import run_checks
from raftbed.errors import PlanError
from raftbed.model import INVALID, Plan, Verdict
from raftbed.private_files import write_private
from raftbed.record import NOT_DECODABLE, why_not_decodable
from raftbed.sim.recording import RecordedRun, Recording
from raftbed.sim.simulation import Call, rare_collections
from raftbed.store import Results

REPLAY_SCHEMA = "raftbed.replay/1"
_CHECK_SECONDS = 30.0
_CHECK_BYTES = 1 << 30
_MEMORY = "/dev/shm"  # noqa: S108 - a private directory is made in it


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise.

    Attributes:
        checker: that found it.
        cause: its summary without what differs from seed to seed: two violations with the same cause are alike.
        summary: as the check said it.
    """

    checker: str
    cause: str
    summary: str


@dataclass(frozen=True, slots=True)
class Replay:
    """A schedule file.

    Attributes:
        plan: with its schedule spelled out.
        violations: what was found.
        trace_hash: of the run that found it.
        version: of raftbed.
        script: the operations, if they are spelled out.
        schema: "raftbed.replay/1".
    """

    plan: Plan
    violations: tuple[Violation, ...]
    trace_hash: str
    version: str = __version__
    script: tuple[Call, ...] | None = None
    schema: str = REPLAY_SCHEMA


def write_replay(path: Path, replay: Replay) -> None:
    """Write a schedule file.

    Raises:
        StoreError: it cannot be written.
    """
    write_private(path, msgspec.json.format(msgspec.json.encode(replay), indent=1) + b"\n")


def read_replay(path: Path) -> Replay:
    """Read a schedule file, or the plan.json of a simulated run, of which no violation is known.

    Raises:
        PlanError: it is neither; names the file.
    """
    try:
        content = path.read_bytes()
        if msgspec.json.decode(content).get("schema") == REPLAY_SCHEMA:
            return msgspec.json.decode(content, type=Replay)
        return Replay(msgspec.json.decode(content, type=Plan), (), "")
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except (*NOT_DECODABLE, AttributeError) as error:
        raise PlanError(
            f"{path}: is no schedule file: {why_not_decodable(error)}.",
            remedy="Name one that `raftbed campaign` saved, or a plan.json.",
        ) from error


def judge(recording: Recording) -> Results:
    """The verdicts of the plan's checks, in this process and without a run directory."""
    memory = _MEMORY if os.path.isdir(_MEMORY) else None
    with rare_collections(), tempfile.TemporaryDirectory(prefix="raftbed-", dir=memory) as scratch:
        run = RecordedRun(recording, Path(scratch))
        names = recording.plan.checks
        return run_checks(run, names, time_limit=_CHECK_SECONDS, memory_limit=_CHECK_BYTES, isolated=False)


def violations_of(verdicts: Sequence[Verdict]) -> tuple[Violation, ...]:
    """The broken promises among verdicts."""
    return tuple(
        Violation(verdict.checker, cause_of(verdict), verdict.summary)
        for verdict in verdicts
        if verdict.validity == INVALID
    )


def cause_of(verdict: Verdict) -> str:
    """What two violations of one kind have in common: the summary without numbers, names and quantities."""
    text = verdict.summary.partition(" (and ")[0]
    text = re.sub(r"'[^']*'", "'…'", text.replace("'s ", " "))
    text = re.sub(r"\b(n\d+(, )?)+", "a node", text)
    text = re.sub(r"\b[rn]?\d+(\.\d+)?( bytes| s)?\b", "#", text)
    return f"{verdict.checker}: {text[:160]}"


def replay_of(recording: Recording, results: Results, script: Sequence[Call] | None = None) -> Replay:
    """The schedule file of a run."""
    return Replay(
        plan=recording.plan,
        violations=violations_of(results.verdicts),
        trace_hash=recording.trace_hash(),
        script=tuple(script) if script is not None else None,
    )
