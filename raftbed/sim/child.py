"""Simulations in processes of their own, in which a bug can be planted without harm to anyone else."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from raftbed.model import Plan
from raftbed.sim.recording import Recording
from raftbed.sim.simulation import Call, Simulation


def simulate(plan: Plan, *, script: Sequence[Call] | None = None, messages: bool = False) -> Recording:
    """Run a plan; in a child process when it has a bug, which is planted there.

    Parameters:
        plan: what to do.
        script: the operations, spelled out.
        messages: record every message between nodes.
    """
    if plan.bug is None:
        return Simulation(plan, script=script, messages=messages).run()
    with pool(1, plan.bug) as processes:
        return processes.submit(_simulate, plan, script, messages).result()


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


def _simulate(plan: Plan, script: Sequence[Call] | None, messages: bool) -> Recording:
    return Simulation(plan, script=script, messages=messages).run()


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: nobody would take what it finds."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
