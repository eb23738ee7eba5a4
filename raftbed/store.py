"""The store: one directory per run, private, with everything that the run was and found.

::

    store/<test>/<time>/
        manifest.json    schema raftbed.run/1: state, versions, machine, when (see `Manifest`)
        plan.json        the `Plan`, its schedule spelled out
        history.jsonl    every operation and fault event (record.py)
        faults.jsonl     the fault ledger: `FaultEvent` lines
        status.jsonl     what each node said of itself, sampled: `StatusSample` lines
        events.jsonl     what the controller went through: `RunEvent` lines (phases, stalls, errors, warnings)
        nodes/<name>/    node.log, trace.jsonl as fetched from the host
        results.json     schema raftbed.results/1: the verdicts
        report.html
    store/latest -> <test>/<time>

Any stage can be run again from what an earlier one left here, whatever cut it off.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from raftbed.errors import StoreError
from raftbed.model import FaultEvent, Op, Plan, Validity, Verdict, often_made
from raftbed.private_files import write_private
from raftbed.record import NOT_DECODABLE, read_history, read_json_lines, why_not_decodable

RUN_SCHEMA = "raftbed.run/1"
RESULTS_SCHEMA = "raftbed.results/1"

RunState = Literal["prepared", "running", "ended", "interrupted", "failed"]
EventKind = Literal["phase", "stall", "warning", "error"]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What identifies a run and says how far it came.

    Attributes:
        schema: "raftbed.run/1".
        run: "<test>/<time>", the run's name within its store.
        state: "prepared" (planned, hosts not up yet), "running" (also what a killed controller leaves), "ended",
            "interrupted" (by the user, or a simulation that was cut off), "failed" (by an error, see events.jsonl).
        command: the command line that repeats this run.
        started: wall-clock start, ISO 8601 with zone.
        duration: seconds from the start to the end of the run, None before its end.
        versions: of raftbed, Python and the libraries that matter.
        machine: of the controller: system, kernel, cores, user (root or ordinary), kind of local host.
        node_addresses: node name to peer address.
    """

    run: str
    state: RunState
    command: str
    started: str
    duration: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    node_addresses: Mapping[str, str] = field(default_factory=dict)
    schema: str = RUN_SCHEMA


@often_made
class StatusSample:
    """What one node said of itself at one moment.

    Attributes:
        time: nanoseconds since the start of the run, when the answer came.
        node: whom it was asked of.
        reachable: whether it answered; the other fields are None when it did not.
        role: "leader", "follower", "candidate", "pre-candidate", "non-voter".
        term: its current term.
        leader: whom it takes for the leader.
        last_log_index: its last log entry.
        commit_index: what it knows to be committed.
        last_applied: what its state machine has seen.
    """

    time: int
    node: str
    reachable: bool
    role: str | None = None
    term: int | None = None
    leader: str | None = None
    last_log_index: int | None = None
    commit_index: int | None = None
    last_applied: int | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that the controller went through.

    Attributes:
        time: nanoseconds since the start of the run.
        kind: "phase" (a new one began; `message` is its name: "deploy", "clients", "heal", "recovery",
            "final-reads", "collect", "ended"), "stall" (the controller's own event loop stood still;
            detail["seconds"]), "warning", "error".
        message: one sentence, or the name of the phase.
        detail: whatever belongs to it.
    """

    time: int
    kind: EventKind
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Results:
    """The verdicts on a run, as in results.json and in `--json` output (docs/formats.md).

    Attributes:
        schema: "raftbed.results/1".
        run: the run's name, or the path of the history that was checked.
        validity: the worst of the verdicts.
        verdicts: one per check, in the order in which the plan names them.
    """

    run: str
    validity: Validity
    verdicts: tuple[Verdict, ...]
    schema: str = RESULTS_SCHEMA


class RunDirectory:
    """One run's directory. All reads tolerate what is not there yet: an absent file is an empty one.

    Parameters:
        path: an existing directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.history_path = path / "history.jsonl"
        self.faults_path = path / "faults.jsonl"
        self.status_path = path / "status.jsonl"
        self.events_path = path / "events.jsonl"
        self.results_path = path / "results.json"
        self.report_path = path / "report.html"

    def node_directory(self, node: str) -> Path:
        """Where files fetched from a node are kept; made when it is missing."""
        directory = self.path / "nodes" / node
        for path in (directory.parent, directory):  # parents made by mkdir itself would be open to others
            path.mkdir(mode=0o700, exist_ok=True)
        return directory

    def node_file(self, node: str, name: str) -> Path | None:
        """A file fetched from a node ("node.log", "trace.jsonl"), or None when it was not fetched."""
        path = self.path / "nodes" / node / name
        return path if path.is_file() else None

    def trace_records(self, node: str) -> Sequence[Mapping[str, Any]] | None:
        """The records of a node's trace where they are at hand without its file; here they never are."""
        return None

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace manifest.json."""
        self._write("manifest.json", manifest)

    def manifest(self) -> Manifest:
        """Read manifest.json.

        Raises:
            StoreError: missing or malformed: this is not a run directory.
        """
        return self._read("manifest.json", Manifest)

    def write_plan(self, plan: Plan) -> None:
        """Replace plan.json."""
        self._write("plan.json", plan)

    def plan(self) -> Plan:
        """Read plan.json.

        Raises:
            StoreError: missing or malformed.
        """
        return self._read("plan.json", Plan)

    def write_results(self, results: Results) -> None:
        """Replace results.json."""
        self._write("results.json", results)

    def results(self) -> Results | None:
        """Read results.json; None when the run was not checked yet."""
        return self._read("results.json", Results) if self.results_path.exists() else None

    def history(self) -> list[Op]:
        """The events of the history so far."""
        return read_history(self.history_path)[1] if self.history_path.exists() else []

    def faults(self) -> list[FaultEvent]:
        """The fault ledger so far."""
        return self._read_lines(self.faults_path, FaultEvent)

    def status(self) -> list[StatusSample]:
        """The samples of the nodes' status so far."""
        return self._read_lines(self.status_path, StatusSample)

    def events(self) -> list[RunEvent]:
        """What the controller went through so far."""
        return self._read_lines(self.events_path, RunEvent)

    def _write(self, name: str, value: Any) -> None:
        write_private(self.path / name, msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")

    def _read(self, name: str, kind: type[_T]) -> _T:
        path = self.path / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.path} is not a run directory: it has no {name}.",
                remedy="Name one, such as store/latest; `raftbed list runs` shows them.",
            ) from error
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror or error}.") from error
        except NOT_DECODABLE as error:
            raise StoreError(f"{path}: is malformed: {why_not_decodable(error)}.") from error

    @staticmethod
    def _read_lines(path: Path, kind: type[_T]) -> list[_T]:
        if not path.exists():
            return []
        try:
            return [msgspec.convert(record, kind) for record in read_json_lines(path)]
        except msgspec.ValidationError as error:
            raise StoreError(f"{path}: is malformed: {error}.") from error


class Store:
    """A directory of runs.

    Parameters:
        path: the store's root; made, with mode 0700, by the first run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def new_run(self, test: str) -> RunDirectory:
        """Make the directory of a new run and point ``latest`` at it.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            parent = self.path / test
            parent.mkdir(mode=0o700, exist_ok=True)
            while True:
                now = time.time()
                name = time.strftime("%Y%m%dT%H%M%S", time.localtime(now)) + f".{int(now * 1000) % 1000:03d}"
                with contextlib.suppress(FileExistsError):
                    (parent / name).mkdir(mode=0o700)
                    break
            link = self.path / f".latest.{os.getpid()}"
            link.unlink(missing_ok=True)
            link.symlink_to(Path(test) / name)
            link.replace(self.path / "latest")
        except OSError as error:
            raise StoreError(
                f"{self.path}: a run directory cannot be made: {error.strerror or error}.",
                remedy="Choose another place with --store.",
            ) from error
        return RunDirectory(parent / name)

    def runs(self) -> Sequence[RunDirectory]:
        """All runs, oldest first.

        Raises:
            StoreError: the store is there and cannot be read.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                os.listdir(self.path)  # the search below would take a closed directory for an empty one
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror or error}.") from error
        found = [path.parent for path in self.path.glob("*/*/manifest.json") if not path.parent.is_symlink()]
        return [RunDirectory(path) for path in sorted(found, key=lambda path: path.name)]

    def latest(self) -> RunDirectory:
        """The run that was made last.

        Raises:
            StoreError: there is none.
        """
        link = self.path / "latest"
        try:
            is_there = link.is_dir()
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be read: {error.strerror or error}.") from error
        if not is_there:
            raise StoreError(f"{self.path}: holds no run yet.", remedy="Make one: raftbed run partition-test")
        return RunDirectory(link.resolve())
