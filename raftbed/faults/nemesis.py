"""The nemesis: goes through a schedule, and sees that every fault is injected, proved, healed and proved over.

A fault that fails is recorded and the schedule goes on; whatever was begun is healed in the end. Everything that
happens goes to the ledger (`FaultEvent`) and into the history (process "nemesis"), on the clock of the run.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from raftbed.errors import RaftbedError
from raftbed.faults.base import Fault, NodeControl
from raftbed.faults.kill import Kill
from raftbed.faults.partition import Partition
from raftbed.faults.shapes import aims_at_leader
from raftbed.faults.toolbox import LEASE_SECONDS, MECHANISMS, Toolbox
from raftbed.hosts.base import Host
from raftbed.hosts.parallel import in_parallel
from raftbed.model import NEMESIS, SECOND, FaultEvent, FaultState, FaultStep, Op

_HEAL_ATTEMPTS = 3


class Nemesis:
    """Executes schedules.

    Parameters:
        hosts: node to its host.
        control: of the processes under test.
        clock: nanoseconds since the start of the run.
        record_event: takes each line of the ledger.
        record_op: takes each nemesis operation of the history.
        sleep: waits that many seconds.
        faults: kind to its fault, for tests; by default those that there are.
        mechanism: how to cut the network, one of `MECHANISMS`; by default the best that all hosts can do.
        lease_seconds: a host that hears nothing of its controller for so long heals itself.
    """

    def __init__(
        self,
        *,
        hosts: Mapping[str, Host],
        control: NodeControl,
        clock: Callable[[], int],
        record_event: Callable[[FaultEvent], None],
        record_op: Callable[[Op], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        faults: Mapping[str, Fault] | None = None,
        mechanism: str | None = None,
        lease_seconds: int = LEASE_SECONDS,
    ) -> None:
        self._toolboxes = {name: Toolbox(host, lease_seconds=lease_seconds) for name, host in hosts.items()}
        self._renew_every = lease_seconds / 6
        self._control = control
        self._clock = clock
        self._record_event = record_event
        self._record_op = record_op
        self._sleep = sleep
        self._kill = Kill(control)
        self._led_last: str | None = None
        self._mechanism = mechanism
        self._partition: Partition | None = None
        self._faults: Mapping[str, Fault] = faults or {}
        self._in_force: dict[str, FaultStep] = {}  # begun and not proved healed
        self._injections: dict[str, asyncio.Future[tuple[str, ...] | None]] = {}
        self._heals: set[asyncio.Future[str | None]] = set()
        self._start = 0
        self._late = 0.0  # seconds by which the scene under way began late, or the one before ended late
        self._planned_end: float | None = None  # of the scene under way
        self._any_failed = False
        self._locks: dict[str, asyncio.Lock] = {}

    def held_down(self) -> set[str]:
        """The nodes that a fault has killed and not started again."""
        return self._kill.held_down()

    def found_dead(self) -> Mapping[str, str]:
        """The nodes that had died by themselves before a fault came to kill them, and that fault's id."""
        return self._kill.found_dead()

    async def prepare(self) -> None:
        """Heal what earlier runs left on the hosts, find out how they can cut, start their dead-men.

        Raises:
            HostError: a host cannot be used.
        """
        boxes = list(self._toolboxes.values())
        await in_parallel(box.prepare() for box in boxes)
        # All hosts cut in the same way, so that directions mean the same.
        mechanism = self._mechanism or max((box.mechanism for box in boxes), key=MECHANISMS.index)
        self._partition = Partition(self._toolboxes, mechanism, sleep=self._sleep)
        self._faults = {"partition": self._partition, "kill": self._kill}
        await in_parallel([self._partition.check_open(), *(box.arm() for box in boxes)])

    async def keep_leases(self) -> None:
        """Renew the leases of the hosts' dead-men, until cancelled."""

        async def keep(box: Toolbox) -> None:
            while True:
                with contextlib.suppress(RaftbedError):  # a host that cannot be reached heals itself: so it should
                    await box.renew()
                await self._sleep(self._renew_every)

        async with asyncio.TaskGroup() as group:
            for box in self._toolboxes.values():
                group.create_task(keep(box))

    async def run(self, schedule: Sequence[FaultStep], *, start: int) -> None:
        """Execute a schedule, at its times as long as the hosts can follow.

        On slow hosts a fault takes its time to strike, to be proved and to be healed. Faults that were not meant to
        overlap do not: the next scene waits until the one before is healed, and then for half of the calm that was
        planned between them. All that comes later moves by as much; see `late`.

        Parameters:
            schedule: its times count from `start`.
            start: nanoseconds since the start of the run.
        """
        self._start, self._late = start, 0.0
        before = 0.0  # when the scene before was planned to end
        for scene in scenes_of(schedule):
            calm = scene[0].at - before
            self._late = max(0.0, self._late - calm / 2)
            self._planned_end = before = max(step.until for step in scene)
            await in_parallel(self._execute(step, start + int(self._late * SECOND)) for step in scene)
            self._late = max(0.0, (self._clock() - start) / SECOND - before)
            self._planned_end = None

    def late(self) -> float:
        """Seconds by which the schedule is behind its times now and worth waiting for; 0 where the hosts can follow.

        Once a fault failed (a host hangs, say) nothing is worth waiting for: the run is unknown whatever comes.
        """
        if self._any_failed:
            return 0.0
        if self._planned_end is None:
            return self._late
        return max(self._late, (self._clock() - self._start) / SECOND - self._planned_end)

    async def heal_all(self) -> list[str]:
        """Heal everything in force, on all nodes, with proof; returns a sentence for each failure. Idempotent."""
        failures: list[str] = []
        for attempt in range(_HEAL_ATTEMPTS):
            if attempt:
                await self._sleep(0.5)
            steps = list(self._in_force.values())
            outcomes = await asyncio.gather(*(self._heal(step) for step in steps))
            failures = [outcome for outcome in outcomes if outcome]
            if not failures:
                break
        leftovers = await asyncio.gather(
            *(box.heal_leftovers() for box in self._toolboxes.values()), return_exceptions=True
        )
        failures += [str(error) for error in leftovers if isinstance(error, Exception)]
        if self._partition is not None and not failures:
            try:
                await self._partition.check_open()
            except RaftbedError as error:
                failures.append(str(error))
        return failures

    # -- one step -------------------------------------------------------------------------------------------------

    async def _execute(self, step: FaultStep, start: int) -> None:
        await self._sleep_until(start + int(step.at * SECOND))
        if await self._inject(step):
            await self._sleep_until(start + int(step.until * SECOND))
        await self._heal(step)

    async def _inject(self, step: FaultStep) -> bool:
        order, aim = await self._order(step)
        self._in_force[step.id] = step
        # Once begun it runs to its end, also when the run is cut short: healing must not overtake it.
        injection = asyncio.ensure_future(self._inject_once(step, order, aim))
        self._injections[step.id] = injection
        nodes = await asyncio.shield(injection)
        if nodes is None:
            return False
        try:
            self._note(step, "proved", nodes, await self._faults[step.kind].prove(step))
        except Exception as error:
            self._note(step, "failed", nodes, {**aim, "error": _sentence(error)})
            return False
        return True

    async def _inject_once(
        self, step: FaultStep, order: Sequence[str], aim: Mapping[str, Any]
    ) -> tuple[str, ...] | None:
        """Make it happen and note when it had; the nodes that it acts on, or None where it failed."""
        try:
            detail = dict(await self._faults[step.kind].inject(step, order))
        except Exception as error:  # whatever it was, the schedule goes on, and what was begun is healed
            self._note(step, "failed", (), {**aim, "error": _sentence(error)})
            return None
        nodes = tuple(detail.pop("nodes", ()))
        self._note(step, "injected", nodes, {**aim, **detail})
        return nodes

    async def _order(self, step: FaultStep) -> tuple[Sequence[str], dict[str, Any]]:
        """The step's order, whoever leads now put first where the shape aims at the leader: best effort.

        Where nobody leads, whoever was seen to lead last serves: a leader that its followers have left steps down
        before long, and is still the one that holds what it could not commit.
        """
        if not aims_at_leader(step.kind, step.shape):
            return step.order, {}
        seen = None
        with contextlib.suppress(RaftbedError):
            seen = await self._control.leader()
        if seen is None:
            return self._first(step, self._led_last), {"leader": None, "led_last": self._led_last}
        self._led_last = seen.node
        return self._first(step, seen.node), {"leader": seen.node, "term": seen.term, "evidence": dict(seen.evidence)}

    def _first(self, step: FaultStep, node: str | None) -> Sequence[str]:
        """The step's order with `node` first; a kill's with those last that are down already."""
        down = self._kill.held_down() if step.kind == "kill" else set()
        return sorted(step.order, key=lambda name: (name in down, name != node))

    async def _heal(self, step: FaultStep) -> str | None:
        """Heal a step that is in force; a sentence when that failed. Once begun it goes on, also when cancelled."""
        healing = asyncio.ensure_future(self._heal_once(step))
        self._heals.add(healing)
        healing.add_done_callback(self._heals.discard)
        return await asyncio.shield(healing)

    async def _heal_once(self, step: FaultStep) -> str | None:
        async with self._locks.setdefault(step.id, asyncio.Lock()):
            if step.id not in self._in_force:
                return None
            if step.id in self._injections:
                await asyncio.wait({self._injections[step.id]})
            try:
                detail = await self._faults[step.kind].heal(step)
            except Exception as error:  # whatever it was, the others are still to be healed
                self._note(step, "failed", (), {"error": _sentence(error), "while": "healing"})
                return _sentence(error)
            del self._in_force[step.id]
            self._note(step, "healed", (), detail)
            return None

    def _note(self, step: FaultStep, state: FaultState, nodes: tuple[str, ...], detail: Mapping[str, Any]) -> None:
        now = self._clock()
        self._any_failed |= state == "failed"
        self._record_event(FaultEvent(now, step.id, step.kind, step.shape, state, nodes, detail))
        value = {"fault": step.id, "shape": step.shape, "state": state, "nodes": nodes}
        error = str(detail["error"]) if state == "failed" else None
        self._record_op(Op(0, now, "info", NEMESIS, step.kind, None, value, error))

    async def _sleep_until(self, due: int) -> None:
        await self._sleep(max(0.0, (due - self._clock()) / SECOND))


def scenes_of(schedule: Sequence[FaultStep]) -> list[list[FaultStep]]:
    """A schedule cut where nothing is planned to be in force: what overlaps or touches belongs together."""
    scenes: list[list[FaultStep]] = []
    for step in sorted(schedule, key=lambda step: step.at):
        if scenes and step.at <= max(other.until for other in scenes[-1]):
            scenes[-1].append(step)
        else:
            scenes.append([step])
    return scenes


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, RaftbedError) else f"{type(error).__name__}: {error}"
