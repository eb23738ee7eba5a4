"""Bugs of the shell around the core, which the simulator of cores cannot have, are found with whole nodes.

Each is planted by hand, for one test; that the same seeds are valid without it says test_shell_simulation.py.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from shell_support import run
from sim_support import broken, judged, step

from raftbed.nodes import deadlines, peers, problems, server, service, wire
from raftbed.nodes.problems import Problem
from raftbed.nodes.raft import driver
from raftbed.nodes.raft.errors import LeadershipLost, ShuttingDown
from raftbed.nodes.state_machine import Result

SCENARIOS: dict[str, dict[str, Any]] = {
    "hasty clients, slow disks": {
        "time_limit": 5.0,
        "schedule": [step("hasty-clients", "all", 0.3, 4.5), step("slow-disk", "majority", 0.5, 4.0, number=2)],
    },
    "hasty clients, a leader alone": {
        "time_limit": 5.0,
        "node_options": {"check_quorum": False},
        "schedule": [step("hasty-clients", "all", 0.3, 4.5), step("partition", "leader-alone", 0.6, 2.0, number=2)],
    },
    "a leader alone is told to stop": {
        "time_limit": 5.0,
        "operation_timeout": 0.5,  # clients come again, so that some read after the others have gone on
        "node_options": {"check_quorum": False},
        "schedule": [
            step("partition", "leader-alone", 0.6, 2.0),
            step("terminate", "all", 1.5, 2.0, number=2),
            step("partition", "leader-alone", 2.8, 4.2, number=3),
            step("terminate", "all", 3.6, 4.0, number=4),
        ],
    },
    "no fault": {"test": "smoke-test", "time_limit": 1.0},
    "a long cut": {
        "test": "smoke-test",
        "time_limit": 19.0,
        "rate": 20.0,
        "recovery_timeout": 4.0,
        "schedule": [step("partition", "halves", 1.0, 18.0)],
    },
}


def is_found(check: str, *faults: str, test: str = "chaos-test", seeds: int = 20, **settings: Any) -> bool:
    """`check` finds whatever is planted within so many seeds of a test with these faults."""
    chosen = {"faults": list(faults), **settings}
    runs = (broken(judged(run(test, seed=seed, **chosen))) for seed in range(seeds))
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
    def fail(self: Any, step: int) -> None:
        for future in self._due.pop(step)[0]:
            if not future.done():
                future.set_result(driver.ClientWriteResponse(0, 0, Result("done", None)))

    monkeypatch.setattr(deadlines.Deadlines, "_fail", fail)
    assert is_found("linearizable", **SCENARIOS["hasty clients, slow disks"])


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
            if not ready.independent:
                self._finish(ready.effects)

    monkeypatch.setattr(driver.Driver, "_begin", begin)
    assert is_found("raft-invariants", "slow-disk", "kill", time_limit=6.0)


def test_a_body_is_taken_to_come_in_one_piece(monkeypatch):
    async def body(request: Any, limit: int) -> bytes:
        return await request.content.readany()

    monkeypatch.setattr(server, "_body", body)
    # The operator's request that makes a cluster of the nodes is cut in two, and refused: there is never a leader.
    assert is_found("liveness", test="smoke-test", seeds=100, time_limit=1.0, recovery_timeout=3.0)


def test_a_write_whose_time_is_up_is_called_a_failure(monkeypatch):
    honest = problems.of_write

    def of_write(node: str, error: Exception) -> Problem | None:
        problem = honest(node, error)
        if problem is not None and isinstance(error, TimeoutError):
            return Problem(problem.status, problem.code, problem.message, definite=True)
        return problem

    monkeypatch.setattr(problems, "of_write", of_write)
    # A client that waits as long as it lets the node wait has hung up before it hears this.
    assert is_found("linearizable", **SCENARIOS["hasty clients, slow disks"])


@pytest.mark.parametrize(
    ("failure", "scenario"),
    [(TimeoutError, "hasty clients, a leader alone"), (ShuttingDown, "a leader alone is told to stop")],
)
def test_a_read_that_was_not_confirmed_is_answered_nevertheless(monkeypatch, failure, scenario):
    honest = service.Service._finish_get

    def finish(self: Any, key: str, future: asyncio.Future[Any]) -> service.Answer:
        if not isinstance(future.exception(), failure):
            return honest(self, key, future)
        value, metrics = self._machine.read(key), self._raft.metrics().current
        done = service.Done(key, value, metrics.last_applied, metrics.current_term, metrics.id)
        return service.Answer(200, service._encode_json(done))

    monkeypatch.setattr(service.Service, "_finish_get", finish)
    assert is_found("linearizable", **SCENARIOS[scenario])


def test_the_rest_of_a_frame_that_came_in_pieces_is_forgotten(monkeypatch):
    feed = wire.Frames.feed

    def forgetful(self: Any, data: bytes) -> Any:
        yield from feed(self, data)
        self._parts = []

    monkeypatch.setattr(wire.Frames, "feed", forgetful)
    # A new connection mends it each time, so that clients see nothing of it; the nodes' own complaints are findings.
    assert is_found("node-health", **SCENARIOS["no fault"])


def test_a_connection_that_fell_silent_is_never_given_up(monkeypatch):
    def look(self: Any) -> None:
        self._timer = None
        now = self._loop.time()
        while self._waiting:
            number, (answer, _, since) = next(iter(self._waiting.items()))
            if since + self._patience > now + 0.0005:
                self._timer = self._loop.call_later(since + self._patience - now, self._look)
                return
            del self._waiting[number]
            peers._fail(answer, TimeoutError("no answer in time"))

    monkeypatch.setattr(peers.Connection, "_look", look)
    # TCP tries to connect at ever longer intervals: after 17 seconds of silence it may wait for another ten.
    assert is_found("liveness", **SCENARIOS["a long cut"])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_without_a_bug_these_scenarios_find_nothing(scenario):
    settings = {"test": "chaos-test", **SCENARIOS[scenario]}
    for seed in range(3):
        assert not broken(judged(run(seed=seed, **settings)))
