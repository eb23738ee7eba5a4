"""What a simulated run leaves: the files of a live run, kept in memory until someone wants them on disk."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from raftbed import __version__
from raftbed.model import SECOND, FaultEvent, Op, Plan
from raftbed.nodes.trace import TRACE_SCHEMA
from raftbed.private_files import write_private
from raftbed.record import HISTORY_SCHEMA, op_record
from raftbed.store import EventKind, Manifest, RunDirectory, RunEvent, RunState, StatusSample

_ENCODER = msgspec.json.Encoder()


@dataclass(slots=True)
class Recording:
    """Everything that was recorded; what it holds is what the seed and the version say, and nothing else.

    Attributes:
        plan: what was run.
        ops: the history.
        faults: the ledger.
        status: samples.
        events: phases, and what went wrong.
        traces: node to what it went through: (time, event, fields).
        logs: node to the lines of its log.
        messages: see :class:`raftbed.sim.message_log.MessageLog`, when messages were recorded.
        counts: totals: events of the simulation, messages, operations, ...
        draws: a last draw of each generator: two runs that agree here have drawn alike.
        duration: virtual nanoseconds.
        state: how the run ended.
    """

    plan: Plan
    ops: list[Op] = field(default_factory=list)
    faults: list[FaultEvent] = field(default_factory=list)
    status: list[StatusSample] = field(default_factory=list)
    events: list[RunEvent] = field(default_factory=list)
    traces: dict[str, list[tuple[int, str, Any]]] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    draws: list[float] = field(default_factory=list)
    duration: int = 0
    state: RunState = "running"

    def event(self, time: int, kind: EventKind, message: str, **detail: Any) -> None:
        """Note what the run goes through."""
        self.events.append(RunEvent(time, kind, message, detail))

    def history(self) -> list[Op]:
        """The history with its events numbered."""
        return [
            Op(index, op.time, op.type, op.process, op.f, op.key, op.value, op.error, op.node, op.client, op.serial)
            for index, op in enumerate(self.ops)
        ]

    def history_lines(self) -> bytes:
        """history.jsonl."""
        plan = self.plan
        head = {"schema": HISTORY_SCHEMA, "test": plan.test, "workload": plan.workload, "seed": plan.seed}
        return _lines([head, *({**op_record(op), "index": index} for index, op in enumerate(self.ops))])

    def trace_lines(self, node: str) -> bytes:
        """A node's trace.jsonl (docs/node.md); its times are virtual ones, the same on all nodes."""
        records = []
        number = 0  # within the process
        for time, event, fields in self.traces[node]:
            number = 0 if event == "process" else number + 1
            records.append({"time": time, "node": node, "seq": number, "event": event, **fields})
        return _lines(records)

    def trace_records(self, node: str) -> list[dict[str, Any]]:
        """The records of a node's trace, but for "time" and "node", which nothing is judged by."""
        records = []
        number = 0
        for _, event, fields in self.traces[node]:
            number = 0 if event == "process" else number + 1
            records.append({"seq": number, "event": event, **fields})
        return records

    def trace_hash(self) -> str:
        """A hash of everything that happened: equal for two runs exactly when they went the same way."""
        digest = blake2b(digest_size=16)
        for part in (self.history_lines(), _lines(self.faults), _lines(self.status), _lines(self.events)):
            digest.update(part)
        for node in self.plan.nodes:
            digest.update(self.trace_lines(node))
        digest.update(_ENCODER.encode([self.counts, self.draws]))
        return digest.hexdigest()

    def write(self, directory: RunDirectory, *, command: str, started: str) -> Manifest:
        """Leave everything in a run directory, as a live run does.

        Parameters:
            directory: to be filled.
            command: that repeats the run.
            started: wall-clock time, ISO 8601.

        Raises:
            StoreError: it cannot be written.
        """
        directory.write_plan(self.plan)
        write_private(directory.history_path, self.history_lines())
        write_private(directory.faults_path, _lines(self.faults))
        write_private(directory.status_path, _lines(self.status))
        write_private(directory.events_path, _lines(self.events))
        if self.messages:
            write_private(directory.path / "messages.jsonl", _lines(self.messages))
        for node in self.plan.nodes:
            place = directory.node_directory(node)
            write_private(place / "trace.jsonl", self.trace_lines(node))
            write_private(place / "node.log", "".join(f"{line}\n" for line in self.logs[node]).encode())
        manifest = Manifest(
            run=f"{directory.path.parent.name}/{directory.path.name}",
            state=self.state,
            command=command,
            started=started,
            duration=self.duration / SECOND,
            versions={"raftbed": __version__, "python": platform.python_version(), "msgspec": msgspec.__version__},
            machine={"simulated": True, "trace_hash": self.trace_hash(), **self.counts},
        )
        directory.write_manifest(manifest)
        return manifest


class RecordedRun(RunDirectory):
    """A recording in the shape that checks read; only what they want as a file is written, when they want it.

    Parameters:
        recording: to be judged.
        path: an existing directory for such files.
    """

    def __init__(self, recording: Recording, path: Path) -> None:
        super().__init__(path)
        self._recording = recording
        self._history: list[Op] | None = None

    def manifest(self) -> Manifest:
        """See `RunDirectory`."""
        recording = self._recording
        machine = {"simulated": True}
        return Manifest(run=recording.plan.test, state=recording.state, command="", started="", machine=machine)

    def plan(self) -> Plan:
        """See `RunDirectory`."""
        return self._recording.plan

    def history(self) -> list[Op]:
        """See `RunDirectory`."""
        if self._history is None:
            self._history = self._recording.history()
        return self._history

    def faults(self) -> list[FaultEvent]:
        """See `RunDirectory`."""
        return self._recording.faults

    def status(self) -> list[StatusSample]:
        """See `RunDirectory`."""
        return self._recording.status

    def events(self) -> list[RunEvent]:
        """See `RunDirectory`."""
        return self._recording.events

    def trace_records(self, node: str) -> list[dict[str, Any]]:
        """See `RunDirectory`."""
        return self._recording.trace_records(node)

    def node_file(self, node: str, name: str) -> Path | None:
        """See `RunDirectory`."""
        path = self.node_directory(node) / name
        if name == "trace.jsonl":
            path.write_bytes(self._recording.trace_lines(node))
        elif name == "node.log":
            path.write_text("".join(f"{line}\n" for line in self._recording.logs[node]))
        else:
            return None
        return path


def process_record(boot: int) -> dict[str, Any]:
    """What begins a process in a trace; a simulated one has its boot for a process id, and no wall clock."""
    return {"schema": TRACE_SCHEMA, "pid": boot, "wall_time": 0.0, "simulated": True}


def _lines(records: Sequence[Any]) -> bytes:
    return _ENCODER.encode_lines(records)
