"""Bugs of the shell around the core, which the simulator of cores cannot have, are found with whole nodes.

Each is planted by hand, for one test; that the same seeds are valid without it says test_shell_simulation.py.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from shell_support import run
from sim_support import broken, judged, step

from raftbed.nodes import problems, server, service
from raftbed.nodes.problems import Problem
from raftbed.nodes.raft import driver
from raftbed.nodes.raft.errors import LeadershipLost, ShuttingDown
from raftbed.nodes.state_machine import Result


def is_found(check: str, *faults: str, test: str = "chaos-test", seeds: int = 20, **settings: Any) -> bool:
    """`check` finds whatever is planted within so many seeds of a test with these faults."""
    runs = (broken(judged(run(test, seed=seed, faults=list(faults), **settings))) for seed in range(seeds))
    return any(line.startswith(f"{check}:") for lines in runs for line in lines)


def test_a_write_that_a_shutdown_cut_off_is_called_a_failure(monkeypatch):
    honest = problems.of_write

    def of_write(node: str, error: Exception) -> Problem | None:
        problem = honest(node, error)
        if problem is not None and isinstance(error, LeadershipLost | ShuttingDown):
            return Problem(problem.status, problem.code, problem.message, definite=True)
        return problem

    monkeypatch.setattr(problems, "of_write", of_write)
    assert is_found("linearizable", "terminate")


def test_a_write_is_acknowledged_when_its_time_is_up(monkeypatch):
    patience = service._patience

    def time_out(future: asyncio.Future[Any]) -> None:
        if not future.done():
            future.set_result(driver.ClientWriteResponse(0, 0, Result("done", None)))

    monkeypatch.setattr(service, "_patience", lambda query: min(patience(query), 0.1))
    monkeypatch.setattr(service, "_time_out", time_out)
    assert is_found("linearizable", "pause", "slow-disk", "partition")


def test_a_write_that_is_sent_again_is_done_again(monkeypatch):
    # Only who sends again notices: after a reset, or when a client hung up and asks another node.
    monkeypatch.setattr(service, "session_of", lambda body: {})
    impatience = [step("hang-up", "all", 0.2, 4.8)]
    assert is_found("linearizable", time_limit=5.0, schedule=impatience)


def test_answers_do_not_wait_for_the_disk(monkeypatch):
    def begin(self: Any, ready: Any) -> None:
        if ready.traces:
            self._tracer(ready.traces)
        for message in ready.early:
            self._send(message)
        if ready.persist is not None:
            persist = ready.persist
            write = self._storage.persist
            if persist.compact_to is not None:
                write = partial(write, compact_to=persist.compact_to, install=persist.install)
            arguments = (persist.hard_state, persist.truncate_from, persist.entries)
            self._disk.call(write, arguments, lambda _, error: self._end(error) if error else None)
            self._core.step(driver.Durable(), self._clock())

    monkeypatch.setattr(driver.Driver, "_begin", begin)
    assert is_found("raft-invariants", "slow-disk", "kill", time_limit=6.0)


def test_a_body_is_taken_to_come_in_one_piece(monkeypatch):
    async def body(request: Any, limit: int) -> bytes:
        return await request.content.readany()

    monkeypatch.setattr(server, "_body", body)
    # The operator's request that makes a cluster of the nodes is cut in two, and refused: there is never a leader.
    assert is_found("liveness", test="smoke-test", time_limit=1.0, recovery_timeout=3.0)
