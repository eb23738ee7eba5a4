"""Workers follow an operation to its end, and never call unknown what is known, nor known what is unknown."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from tests_support import make_plan_for_tests

from raftbed.clients import Tally, Worker, ask_until_served, gather_workers
from raftbed.model import SECOND, Op
from raftbed.workloads.base import Answer, Outcome, Request

WRITE = Request("write", "x", 1)
READ = Request("read", "x")


@dataclass
class Script:
    """A connection that answers from a script, and keeps what it was asked."""

    answers: Callable[[str, int], Answer]
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    now: int = 0

    async def attempt(self, node, request, *, client, serial, timeout):
        self.asked.append((node, client, serial))
        answer = self.answers(node, len(self.asked))
        self.now += int((timeout if answer.fate == "lost" else 0.001) * SECOND)
        return answer

    async def sleep(self, seconds):
        self.now += int(seconds * SECOND)


def worker_for(script: Script) -> tuple[Worker, list[Op], Tally]:
    history: list[Op] = []
    tally = Tally()
    plan = make_plan_for_tests(nodes=3, concurrency=2, operation_timeout=2.0)
    worker = Worker(0, plan, script, clock=lambda: script.now, record=history.append, tally=tally, sleep=script.sleep)
    return worker, history, tally


def refused(node: str, leader: str | None = None) -> Answer:
    return Answer("refused", code="not-leader", message=f"{node} does not lead", node=node, leader=leader)


LOST = Answer("lost", code="timeout")


async def test_an_acknowledged_operation_is_ok_and_names_who_answered():
    worker, history, tally = worker_for(Script(lambda node, n: Answer("ok", value=1, node=node)))
    assert await worker.operate(WRITE) == Outcome("ok", 1, None, "n1")
    assert [(op.type, op.process, op.f, op.key, op.value, op.node, op.client, op.serial) for op in history] == [
        ("invoke", 0, "write", "x", 1, "n1", "c0", 1),
        ("ok", 0, "write", "x", 1, "n1", "c0", 1),
    ]
    assert (tally.ok, tally.fail, tally.info) == (1, 0, 0)


async def test_not_leader_is_followed_for_this_operation_only():
    script = Script(lambda node, n: Answer("ok", node=node) if node == "n3" else refused(node, "n3"))
    worker, _, _ = worker_for(script)
    await worker.operate(WRITE)
    await worker.operate(WRITE)
    assert [node for node, _, _ in script.asked] == ["n1", "n3", "n1", "n3"]


async def test_a_refusal_before_anything_was_sent_on_is_a_definite_failure():
    worker, history, _ = worker_for(Script(lambda node, n: refused(node)))
    assert (await worker.operate(WRITE)).type == "fail"
    assert history[-1].error == "not-leader: n1 does not lead"


async def test_two_nodes_that_name_each_other_leader_end_in_failure_not_in_a_circle():
    script = Script(lambda node, n: refused(node, {"n1": "n2", "n2": "n1"}[node]))
    worker, _, _ = worker_for(script)
    assert (await worker.operate(WRITE)).type == "fail"
    assert len(script.asked) == 2


async def test_a_lost_answer_is_asked_for_again_under_the_same_serial():
    script = Script(lambda node, n: LOST if n == 1 else Answer("ok", node=node))
    worker, _, _ = worker_for(script)
    assert (await worker.operate(WRITE)).type == "ok"
    assert [(client, serial) for _, client, serial in script.asked] == [("c0", 1), ("c0", 1)]


async def test_refusals_after_a_lost_answer_do_not_make_it_a_failure():
    script = Script(lambda node, n: LOST if n == 1 else refused(node))
    worker, history, tally = worker_for(script)
    assert (await worker.operate(WRITE)).type == "info"
    assert history[-1].error == "timeout"
    assert (tally.ok, tally.fail, tally.info) == (0, 0, 1)


async def test_a_condition_that_did_not_hold_is_a_failure_even_after_a_lost_answer():
    # The session answers what it answered the first time, so the answer speaks of the one execution.
    rejected = Answer("rejected", code="precondition-failed", node="n2")
    worker, _, _ = worker_for(Script(lambda node, n: LOST if n == 1 else rejected))
    assert (await worker.operate(Request("cas", "x", [1, 2]))).type == "fail"


async def test_a_lost_read_is_a_failure():
    worker, history, _ = worker_for(Script(lambda node, n: LOST))
    assert (await worker.operate(READ)).type == "fail"
    assert history[-1].value is None


async def test_an_unknown_operation_retires_process_and_session():
    worker, history, _ = worker_for(Script(lambda node, n: LOST))
    await worker.operate(WRITE)
    await worker.operate(WRITE)
    begins = [(op.process, op.client, op.serial) for op in history if op.type == "invoke"]
    assert begins == [(0, "c0", 1), (2, "c2", 1)]  # two workers, so the next process id is 0 + 2


async def test_a_cancelled_operation_is_unknown():
    class Hanging:
        async def attempt(self, *args, **kwargs):
            await asyncio.Event().wait()

    history: list[Op] = []
    plan = make_plan_for_tests(nodes=3, concurrency=2)
    worker = Worker(0, plan, Hanging(), clock=lambda: 0, record=history.append, tally=Tally())
    task = asyncio.ensure_future(worker.operate(WRITE))
    while not history:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [op.type for op in history] == ["invoke", "info"]


@pytest.mark.parametrize("unwritten", ["invoke", "ok"])
async def test_an_operation_that_could_not_be_recorded_is_unknown_and_retires_its_process(unwritten):
    def record(op: Op) -> None:
        if op.type == unwritten and op.process == 0:
            raise OSError("No space left on device")
        history.append(op)

    history: list[Op] = []
    script, tally = Script(lambda node, n: Answer("ok", node=node)), Tally()
    plan = make_plan_for_tests(nodes=3, concurrency=2)
    worker = Worker(0, plan, script, clock=lambda: script.now, record=record, tally=tally, sleep=script.sleep)
    with pytest.raises(OSError, match="No space"):
        await worker.operate(WRITE)
    assert (tally.ok, tally.info) == (0, 0 if unwritten == "invoke" else 1)  # what was not invoked is no operation
    await worker.operate(WRITE)
    left = [(op.type, op.process, op.client, op.serial) for op in history]
    open_one = [] if unwritten == "invoke" else [("invoke", 0, "c0", 1)]
    assert left == [*open_one, ("invoke", 2, "c2", 1), ("ok", 2, "c2", 1)]


async def test_workers_are_cancelled_when_the_run_is_stopped():
    stop = asyncio.Event()
    ended = []

    async def forever():
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def stopper():
        stop.set()

    await gather_workers([forever(), stopper(), forever()], stop=[asyncio.Event(), stop])
    assert ended == [True, True]


async def test_a_broken_worker_is_raised():
    async def broken():
        raise ZeroDivisionError

    async def forever():
        await asyncio.Event().wait()

    with pytest.raises(ZeroDivisionError):
        await gather_workers([forever(), broken()], stop=[asyncio.Event()])


# -- until the cluster serves again -----------------------------------------------------------------------------------


async def asked_by_two(answers: Callable[[str, int], Answer], until: float) -> tuple[Script, list[Op]]:
    """Two workers ask until one is served, or until that many seconds are over."""
    script = Script(answers)
    plan = make_plan_for_tests(nodes=3, concurrency=2, operation_timeout=2.0)
    history: list[Op] = []
    options = {"clock": lambda: script.now, "record": history.append, "tally": Tally(), "sleep": script.sleep}
    workers = [Worker(number, plan, script, **options) for number in range(2)]
    await ask_until_served(workers, [READ, Request("read", "y")], until=int(until * SECOND), stop=[])
    return script, history


async def test_clients_ask_until_one_of_them_is_served():
    script, history = await asked_by_two(
        lambda node, n: Answer("ok", value=1, node=node) if n >= 6 else refused(node), until=60
    )
    assert script.now < 2 * SECOND
    assert sum(op.type == "ok" for op in history) >= 1
    assert {op.key for op in history} == {"x", "y"}


async def test_clients_that_nobody_serves_ask_as_long_as_the_plan_allows_and_all_along():
    _, history = await asked_by_two(lambda node, n: refused(node), until=3)
    begun = sorted(op.time for op in history if op.type == "invoke")
    assert begun[-1] >= 3 * SECOND, "the last attempt begins when the time is over"
    assert max(after - before for before, after in pairwise(begun)) < SECOND / 2
    assert {op.node for op in history} == {"n1", "n2"}, "each asks its own node"
    assert all(op.type in ("invoke", "fail") for op in history)
