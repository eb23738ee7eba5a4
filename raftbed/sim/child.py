"""Simulations in processes of their own, in which a bug can be planted without harm to anyone else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from types import TracebackType
from typing import Self

from raftbed import suite
from raftbed.model import Plan
from raftbed.sim.recording import Recording
from raftbed.sim.simulation import Call, Simulation


class Simulator:
    """Runs plans, all with the same bug, or none: here without one, with one in a child in which it is planted.

    Parameters:
        bug: its name, or None.

    Attributes:
        seconds: of a processor that the child has taken.
    """

    def __init__(self, bug: str | None) -> None:
        self._bug = bug
        self.seconds = 0.0
        self._pool = pool(1, bug) if bug is not None else None

    def run(self, plan: Plan, *, script: Sequence[Call] | None = None, messages: bool = False) -> Recording:
        """Run a plan.

        Parameters:
            plan: what to do; its bug must be the simulator's.
            script: the operations, spelled out.
            messages: record every message between nodes.
        """
        assert plan.bug == self._bug
        if self._pool is None:
            return run(plan, script, messages)
        recording, seconds = self._pool.submit(_timed, plan, script, messages).result()
        self.seconds += seconds
        return recording

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def simulate(plan: Plan, *, script: Sequence[Call] | None = None, messages: bool = False) -> Recording:
    """Run one plan; see `Simulator`."""
    with Simulator(plan.bug) as simulator:
        return simulator.run(plan, script=script, messages=messages)


def pool(jobs: int, bug: str | None) -> ProcessPoolExecutor:
    """Processes to simulate in, started afresh, each with `bug` planted; Ctrl-C is left to this process."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare, initargs=(bug,))


def _prepare(bug: str | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if bug is not None:
        from raftbed import bugs

        bugs.load(bug).plant()


def run(plan: Plan, script: Sequence[Call] | None = None, messages: bool = False) -> Recording:
    """Run a plan in this process: with the nodes' cores, or with whole nodes, as its hosts say."""
    if plan.hosts == suite.REAL_NODES:
        from raftbed.sim.shell.simulation import ShellSimulation

        return ShellSimulation(plan, script=script, messages=messages).run()
    return Simulation(plan, script=script, messages=messages).run()


def _timed(plan: Plan, script: Sequence[Call] | None, messages: bool) -> tuple[Recording, float]:
    before = time.process_time()
    return run(plan, script, messages), time.process_time() - before


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: nobody would take what it finds."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
