"""Everything that a run records while it goes on, and who is told when that fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from raftbed.errors import StoreError
from raftbed.model import FaultEvent, Op, Plan
from raftbed.record import HistoryWriter, LineWriter
from raftbed.store import EventKind, RunDirectory, RunEvent, StatusSample

_T = TypeVar("_T")


class Recorder:
    """The open files of one run.

    A client that cannot record must not go on, and is told. Others have hosts to heal, and go on: that what they tell
    cannot be recorded is the run's business, which finds it here.

    Parameters:
        directory: of the run.
        plan: for the first line of the history.
        clock: nanoseconds since the start of the run.

    Attributes:
        broken: set when what others than clients told could not be recorded.
        failure: why not.

    Raises:
        StoreError: the files cannot be made.
    """

    def __init__(self, directory: RunDirectory, plan: Plan, clock: Callable[[], int]) -> None:
        self._directory = directory
        self._clock = clock
        self.broken = asyncio.Event()
        self.failure: StoreError | None = None
        try:
            self._events = LineWriter(directory.events_path)
            self._faults = LineWriter(directory.faults_path)
            self._status = LineWriter(directory.status_path)
            about = {"test": plan.test, "workload": plan.workload, "seed": plan.seed}
            self._history = HistoryWriter(directory.history_path, about)
        except OSError as error:
            raise self._cannot_write(error) from error

    def client_op(self, op: Op) -> None:
        """Record an event of a client.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            self._history.record(op)
        except OSError as error:
            raise self._cannot_write(error) from error

    def nemesis_op(self, op: Op) -> None:
        """Record an event of the nemesis in the history. Never raises."""
        self._note(self._history.record, op)

    def fault(self, event: FaultEvent) -> None:
        """Record a line of the fault ledger. Never raises."""
        self._note(self._faults.write, event)

    def sample(self, sample: StatusSample) -> None:
        """Record what a node said of itself. Never raises."""
        self._note(self._status.write, sample)

    def event(self, kind: EventKind, message: str, **detail: Any) -> None:
        """Record what the controller went through. Never raises."""
        with contextlib.suppress(OSError):  # a full disk is met, and named, where operations are recorded
            self._events.write(RunEvent(self._clock(), kind, message, detail))

    def close(self) -> None:
        """Close all files."""
        for writer in (self._events, self._faults, self._status, self._history):
            writer.close()

    def _note(self, write: Callable[[_T], None], record: _T) -> None:
        try:
            write(record)
        except OSError as error:
            self.failure = self.failure or self._cannot_write(error)
            self.broken.set()

    def _cannot_write(self, error: OSError) -> StoreError:
        return StoreError(
            f"{self._directory.path}: cannot be written: {error.strerror or error}.",
            remedy="What was recorded before can still be checked: raftbed check, raftbed report.",
        )
