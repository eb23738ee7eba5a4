"""Bugs of the shell around the core, which the simulator of cores cannot have, are found with whole nodes.

Each is planted by hand, for one test. `seed` is one that shows it: the search was over the first ten.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from shell_support import run
from sim_support import broken, judged

from raftbed.nodes import problems, server, service
from raftbed.nodes.problems import Problem
from raftbed.nodes.raft import driver
from raftbed.nodes.raft.errors import LeadershipLost, ShuttingDown
from raftbed.nodes.state_machine import Result


def found(*, seed: int, **settings: Any) -> set[str]:
    """The checks that a run with whatever is planted does not pass."""
    return {line.partition(":")[0] for line in broken(judged(run(seed=seed, **settings)))}


def test_a_write_that_a_shutdown_cut_off_is_called_a_failure(monkeypatch):
    honest = problems.of_write

    def of_write(node: str, error: Exception) -> Problem | None:
        problem = honest(node, error)
        if problem is not None and isinstance(error, LeadershipLost | ShuttingDown):
            return Problem(problem.status, problem.code, problem.message, definite=True)
        return problem

    monkeypatch.setattr(problems, "of_write", of_write)
    assert "linearizable" in found(seed=0)


def test_a_write_is_acknowledged_when_its_time_is_up(monkeypatch):
    async def within(seconds: float, future: asyncio.Future[Any]) -> Any:
        try:
            async with asyncio.timeout(min(seconds, 0.1)):
                return await asyncio.shield(future)
        except TimeoutError:
            return driver.ClientWriteResponse(0, 0, Result("done", None))

    monkeypatch.setattr(service, "_within", within)
    assert "linearizable" in found(seed=1)


def test_a_write_that_is_sent_again_is_done_again(monkeypatch):
    # Only who sends again notices: after a reset, or when a client hung up and asks another node.
    monkeypatch.setattr(service, "session_of", lambda body: {})
    assert "linearizable" in found(seed=1)


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
    assert "raft-invariants" in found(seed=1)


def test_a_body_is_taken_to_come_in_one_piece(monkeypatch):
    async def body(request: Any, limit: int) -> bytes:
        return await request.content.readany()

    monkeypatch.setattr(server, "_body", body)
    assert found(seed=3), "the operator's request, cut in two, is refused: there is never a leader"


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_without_them_the_same_seeds_are_valid(seed):
    assert found(seed=seed) == set()
