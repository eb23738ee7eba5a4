"""Client workers: invoke operations, follow them to their end, record both.

Theory of operation
-------------------
A worker is one logical thread of one client. It stays with one node, its home. An operation is sent there; a "not
leader" answer sends it on to the node that is named, for this operation only. While no attempt can have taken effect,
a refusal is a definite failure. As soon as the answer to an attempt was lost, the operation hangs in the balance: it
is sent again under the same client id and serial, so that a node that has done it already answers what it answered
then, until an answer comes or the operation's own time is up; only then is it `info`. An unknown operation retires
the process: the worker goes on under a new process id (old id + number of workers) and a new client id, because a
process, and a session, has one operation at a time.

A lost read is a failure and not an unknown: it has no effect, and we saw no value.

Everything is recorded from one thread in the order in which it is stamped: the invocation before the first byte is
sent, the completion after the answer was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from random import Random
from typing import Any, Protocol

from raftbed.model import SECOND, Op, OpType, Plan
from raftbed.workloads.base import Answer, Generator, Outcome, Request


class Connection(Protocol):
    """How operations reach the system under test."""

    def attempt(self, node: str, request: Request, *, client: str, serial: int, timeout: float) -> Awaitable[Answer]:
        """Try once to have `request` done by `node`, waiting at most `timeout` seconds. Never raises, never retries.

        Parameters:
            node: whom to ask.
            request: what to do.
            client: the session; with `serial` it names the operation.
            serial: from 1, increasing.
            timeout: seconds.
        """
        ...


@dataclass(slots=True)
class Tally:
    """Running totals for the progress line, and for who waits for progress."""

    ok: int = 0
    fail: int = 0
    info: int = 0

    def count(self, outcome: OpType) -> None:
        """Add one operation that ended."""
        if outcome == "ok":
            self.ok += 1
        elif outcome == "fail":
            self.fail += 1
        else:
            self.info += 1


class Worker:
    """One client worker.

    Parameters:
        number: from 0; its home is node `number` modulo their count.
        plan: for nodes, concurrency, rate and time-outs.
        connection: to the system under test.
        clock: nanoseconds since the start of the run.
        record: takes each event of the history.
        tally: shared totals.
        sleep: waits that many seconds; a test or a simulator brings its own.
    """

    def __init__(
        self,
        number: int,
        plan: Plan,
        connection: Connection,
        *,
        clock: Callable[[], int],
        record: Callable[[Op], None],
        tally: Tally,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._nodes = plan.nodes
        self._home = number % len(plan.nodes)
        self._workers = plan.concurrency
        self._process = number
        self._serial = 0
        self._operation_timeout = plan.operation_timeout
        self._attempt_timeout = max(0.05, plan.operation_timeout / 2)
        self._connection = connection
        self._clock = clock
        self._record = record
        self._tally = tally
        self._sleep = sleep
        self._pacing = Random(f"{plan.seed}:pacing:{number}")
        self._interval = plan.concurrency / plan.rate if plan.rate else 0.0

    async def work(self, generator: Generator, until: Callable[[], bool]) -> None:
        """Invoke what `generator` produces, at the planned rate, until `until()` is true."""
        # Workers start spread over one interval; a worker that fell behind (a slow operation) does not catch up in a
        # burst, it goes on from now.
        due = self._clock() + int(self._pacing.random() * self._interval * SECOND)
        while True:
            # The completion of an operation is always taken before the next is invoked; a zero sleep lets others run.
            await self._sleep(max(0.0, (due - self._clock()) / SECOND))
            if until():
                return
            request = generator.next()
            outcome = await self.operate(request)
            generator.observe(request, outcome)
            now = self._clock()
            if outcome.type == "fail":  # nobody leads, most likely: asking again at once would only burn its time
                now += int(self._pacing.uniform(0.02, 0.08) * SECOND)
            due = max(due + int(self._interval * SECOND), now)

    async def read_all(self, requests: Sequence[Request], *, attempts: int) -> None:
        """Invoke each of `requests`, the failed ones again, each attempt an operation of its own."""
        for request in requests:
            for _ in range(attempts):
                if (await self.operate(request)).type == "ok":
                    break
                await self._sleep(0.1)

    async def ask(self, requests: Iterable[Request], is_over: Callable[[int, Outcome], bool]) -> None:
        """Invoke one of `requests` after the other, until `is_over(when it was invoked, how it ended)`."""
        for request in requests:
            begun = self._clock()
            if is_over(begun, await self.operate(request)):
                break
            await self._sleep(0.1)

    async def operate(self, request: Request) -> Outcome:
        """Invoke one operation, record its beginning and its end, and return how it ended."""
        self._serial += 1
        process, client, serial = self._process, f"c{self._process}", self._serial
        home = self._nodes[self._home]
        begun = self._clock()
        self._note(Op(0, begun, "invoke", process, request.f, request.key, request.value, None, home, client, serial))
        outcome = Outcome("info", request.value, "cancelled: the run was stopped while it was under way")
        fate: OpType = "info"
        try:
            deadline = begun + int(self._operation_timeout * SECOND)
            outcome = await self._follow(request, client, serial, deadline)
        finally:
            try:
                self._note(
                    Op(
                        0, self._clock(), outcome.type, process, request.f, request.key, outcome.value, outcome.error,
                        outcome.node, client, serial,
                    )
                )  # fmt: skip
                fate = outcome.type
            finally:
                self._tally.count(fate)
            if fate == "info":
                self._retire()
        return outcome

    def _note(self, op: Op) -> None:
        """Record an event. Where that fails the history may hold an operation without an end: its process is over."""
        try:
            self._record(op)
        except BaseException:
            self._retire()
            raise

    def _retire(self) -> None:
        self._process += self._workers
        self._serial = 0

    async def _follow(self, request: Request, client: str, serial: int, deadline: int) -> Outcome:
        """Send `request` on, and again, until its fate is known or its time is up."""
        turn = self._home
        target = self._nodes[turn]
        asked: set[str] = set()
        hanging: Answer | None = None  # the last attempt whose answer was lost
        while True:
            left = (deadline - self._clock()) / SECOND
            if left <= 0.01:
                break
            answer = await self._connection.attempt(
                target, request, client=client, serial=serial, timeout=min(left, self._attempt_timeout)
            )
            asked.add(target)
            if answer.fate == "ok":
                value = answer.value if request.is_read else request.value
                return Outcome("ok", value, None, answer.node)
            if answer.fate == "rejected":
                return Outcome("fail", request.value, _reason(answer), answer.node)
            if answer.fate == "lost":
                if request.is_read:
                    return Outcome("fail", None, _reason(answer), answer.node)
                hanging = answer
            if answer.leader is not None and answer.leader in self._nodes and answer.leader not in asked:
                target = answer.leader
                continue
            if hanging is None:
                return Outcome("fail", request.value, _reason(answer), answer.node)
            # In the balance: go round the nodes, forgetting after each round whom we asked.
            turn += 1
            target = self._nodes[turn % len(self._nodes)]
            if turn % len(self._nodes) == self._home:
                asked.clear()
            await self._sleep(0.02)
        if hanging is None:
            # The time went by on attempts that were all refused.
            return Outcome("fail", request.value, "refused: no node took it in time", None)
        return Outcome("info", request.value, _reason(hanging), hanging.node)


def _reason(answer: Answer) -> str:
    return f"{answer.code}: {answer.message}" if answer.message else answer.code


async def ask_until_served(
    workers: Sequence[Worker], requests: Sequence[Request], *, until: int, stop: Sequence[asyncio.Event]
) -> None:
    """Have all workers ask, one attempt close behind the other, until one is served, or until the time is over.

    So clients have asked for all of that time, wherever nobody was served in it: who merely waits proves nothing.

    Parameters:
        workers: each begins with another request, and asks the node that is its home.
        requests: reads, again and again.
        until: nanoseconds since the start of the run. The last attempt begins then, or later.
        stop: as for `gather_workers`.
    """
    served = False

    def is_over(begun: int, outcome: Outcome) -> bool:
        nonlocal served
        served = served or outcome.type == "ok"
        return served or begun >= until

    asking = [worker.ask(islice(cycle(requests), number, None), is_over) for number, worker in enumerate(workers)]
    await gather_workers(asking, stop=stop)


async def gather_workers(tasks: Sequence[Coroutine[Any, Any, None]], *, stop: Sequence[asyncio.Event]) -> None:
    """Run workers to their end; when one of `stop` is set, cancel those that are still at work, and wait for them."""
    group = [asyncio.create_task(task) for task in tasks]
    stoppers = {asyncio.create_task(_until_set(event)) for event in stop}
    try:
        pending: set[asyncio.Task[None]] = set(group)
        while pending and not any(event.is_set() for event in stop):
            done, _ = await asyncio.wait(pending | stoppers, return_when=asyncio.FIRST_COMPLETED)
            pending -= done
            for task in done - stoppers:
                task.result()  # a worker that broke: its error ends the work
    finally:
        for task in (*stoppers, *group):
            task.cancel()
        await asyncio.gather(*group, return_exceptions=True)


async def _until_set(event: asyncio.Event) -> None:
    await event.wait()
