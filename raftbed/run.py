"""One run, from hosts to a recorded history: deploy, clients, faults, heal, final reads, collect.

Theory of operation
-------------------
The run is a line of phases; each leaves in the run directory whatever it learned, at once, so that a run that is cut
off anywhere can be checked as far as it came. Set-up errors end the run, and the first one is what the user sees;
errors of the teardown are recorded and stop nothing. Everything that waits has a bound.

While clients work, five tasks go side by side: the workers, the nemesis with its schedule, the keeper of the hosts'
dead-man leases, the sampler of the nodes' status, and the watch over the controller's own event loop, whose stalls
would otherwise look like slow nodes.

Ctrl-C once ends the clients' phase early; healing, final reads and collection still happen. Twice: only what is
needed to leave nothing behind. Either way the run is "interrupted", and what it recorded can be checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from raftbed import suite
from raftbed.clients import Tally, Worker, ask_until_served, gather_workers
from raftbed.environment import machine, versions
from raftbed.errors import HostError, Interrupted, RaftbedError, StoreError
from raftbed.faults.nemesis import Nemesis
from raftbed.hosts import make_pool
from raftbed.hosts.inventory_file import Access, clean_command, outlives_runs
from raftbed.hosts.parallel import in_parallel
from raftbed.hosts.preflight import Needs, preflight
from raftbed.model import SECOND, FaultEvent, Plan
from raftbed.operating.clusters import ways_to_take_down
from raftbed.recorder import Recorder
from raftbed.stopping import StoppedAtOnce, StopSignal, unless
from raftbed.store import Manifest, RunDirectory, RunState, StatusSample
from raftbed.systems.raft import PORT, RaftSystem
from raftbed.watching import Progress, sample_status, watch_loop

_TEARDOWN_LIMIT = 60.0  # seconds for any one step of the teardown
_PATIENCE = 60.0  # seconds for which clients wait for late faults, beyond as long again as planned
_KILL_LIMIT = 5.0  # seconds for killing nodes on the user's machines, when the user waits for nothing else
_CANCEL_LIMIT = 2.0  # seconds, then, for what is cancelled to end
_HEAL_LIMIT = 180.0  # seconds for the final heal: several commands on hosts that may be slow
_T = TypeVar("_T")


class Run:
    """Executes one plan.

    Parameters:
        plan: what to do.
        directory: where to leave everything.
        command: the command line that repeats the run.
        stop: the user's wish to end early.
        keep: leave the hosts up afterwards.
        access: what the user added to an inventory.
    """

    def __init__(
        self,
        plan: Plan,
        directory: RunDirectory,
        *,
        command: str,
        stop: StopSignal,
        keep: bool = False,
        access: Access | None = None,
    ) -> None:
        self._plan = plan
        self._directory = directory
        self._stop = stop
        self._keep = keep
        self._access = access
        self._start = time.monotonic_ns()
        self._tally = Tally()
        self._rates: deque[tuple[float, int]] = deque(maxlen=9)
        self._phase = "prepare"
        self._active: dict[str, str] = {}
        self._leader: str | None = None
        self._workers: list[Worker] = []
        self._failure: RaftbedError | None = None
        self._has_hosts = False  # of its own, or something of its own on those of the user
        self._running_on: Sequence[str] = ()
        self._manifest = Manifest(
            run=f"{directory.path.parent.name}/{directory.path.name}",
            state="prepared",
            command=command,
            started=datetime.now().astimezone().isoformat(timespec="milliseconds"),
            versions=versions(),
            machine=machine(),
        )
        directory.write_plan(plan)
        directory.write_manifest(self._manifest)
        self._recorder = Recorder(directory, plan, self.clock)

    def clock(self) -> int:
        """Nanoseconds since the start of the run."""
        return time.monotonic_ns() - self._start

    def progress(self) -> Progress:
        """A glance at where the run is."""
        elapsed = self.clock() / SECOND
        self._rates.append((elapsed, self._tally.ok))
        (then, before), (now, count) = self._rates[0], self._rates[-1]
        return Progress(
            elapsed=elapsed,
            phase=self._phase,
            time_limit=self._plan.time_limit,
            ok=self._tally.ok,
            fail=self._tally.fail,
            info=self._tally.info,
            ok_rate=(count - before) / (now - then) if now > then else 0.0,
            faults=tuple(self._active.values()),
            leader=self._leader,
        )

    @property
    def keeps_hosts(self) -> bool:
        """Whether it leaves hosts up, or nodes on those of the user, as it was asked to."""
        return self._keep and self._has_hosts

    @property
    def running_on(self) -> Sequence[str]:
        """Hosts of the user on which nodes may still run, because the run was stopped at once."""
        return self._running_on

    async def execute(self) -> RunState:
        """Run the plan; returns how it ended: "ended" or "interrupted".

        Raises:
            RaftbedError: it could not be run; the first thing that went wrong. What was recorded until then stays.
        """
        state: RunState = "failed"
        try:
            state = await self._phases()
        except StoppedAtOnce:
            if self._failure is not None:  # which came first
                raise self._failure from None
            state = "interrupted"
        except Interrupted:
            state = "interrupted"
            raise
        except RaftbedError as error:
            self._fail(error)
            raise
        except OSError as error:  # of this machine; hosts and the store name theirs
            failure = RaftbedError(f"The run could not go on: {error}.")
            self._fail(failure)
            raise failure from error
        finally:
            self._recorder.event("phase", "ended")
            self._set_manifest(state=state, duration=self.clock() / SECOND)
            self._recorder.close()
        return state

    async def _phases(self) -> RunState:
        self._enter("hosts")
        async with self._hosts() as pool, self._system(pool) as system:
            self._enter("deploy")
            self._has_hosts = True
            await self._set_up(system.install())
            self._enter("start")
            nemesis = self._nemesis(pool, system)
            # Side by side: nodes take their time to start, and the faults' tools do not need them.
            await self._set_up(in_parallel([self._start_system(system), nemesis.prepare()]))
            try:
                await self._clients(system, nemesis)
            except RaftbedError as error:
                self._fail(error)
                raise
            finally:
                if not self._stop.urgent.is_set():
                    await self._heal(system, nemesis)
            if self._recorder.failure is not None:
                raise self._recorder.failure
        return "interrupted" if self._stop.requested.is_set() else "ended"

    async def _start_system(self, system: RaftSystem) -> None:
        await system.start()
        if not await system.wait_ready(timeout=self._plan.recovery_timeout):
            raise HostError(
                f"the nodes elected no leader within {self._plan.recovery_timeout:g} s of their start.",
                remedy=f"Their logs are in {self._directory.path / 'nodes'}.",
            )

    # -- phases ---------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _hosts(self) -> AsyncIterator[Any]:
        pool = make_pool(self._plan.hosts, self._plan.nodes, self._directory.path / "lab", access=self._access)
        try:
            await self._set_up(pool.start())
            self._has_hosts = not outlives_runs(self._plan.hosts)
            clean = clean_command(self._plan.hosts)
            needs = Needs(ports=(PORT,), faults=self._plan.faults, clean=clean, clusters=ways_to_take_down)
            for oddity in await self._set_up(preflight(pool.hosts, needs)):
                self._recorder.event("warning", oddity)
            self._set_manifest(
                state="running",
                node_addresses={name: host.address for name, host in pool.hosts.items()},
            )
            yield pool
        finally:
            self._phase = "teardown"
            await self._bounded("take the hosts away", pool.close(keep=self.keeps_hosts))

    @contextlib.asynccontextmanager
    async def _system(self, pool: Any) -> AsyncIterator[RaftSystem]:
        system = RaftSystem(pool, self._plan)
        try:
            yield system
        except RaftbedError as error:
            self._fail(error)  # now: what the teardown meets comes after it
            raise
        finally:
            with contextlib.suppress(StoppedAtOnce):
                await self._collect(system)
            if self._stop.urgent.is_set():
                await self._abandon(system)
            if self._keep and system.installed:
                from raftbed.operating.bringing_up import remember_kept

                remember_kept(self._directory.path / "lab", self._manifest.run, self._plan, system)
            await self._bounded("close connections", system.close(), limit=_KILL_LIMIT)

    async def _collect(self, system: RaftSystem) -> None:
        if self._stop.urgent.is_set():
            return
        self._enter("collect")
        if not self._keep:
            await self._bounded("stop the nodes", self._unless_urgent(system.stop()))
        missing = await self._bounded("fetch the nodes' logs", self._unless_urgent(system.collect(self._directory)))
        for sentence in missing or ():
            self._recorder.event("warning", sentence)

    async def _abandon(self, system: RaftSystem) -> None:
        """Leave no node behind on hosts that outlive the run; those that do not take theirs with them."""
        self._recorder.event(
            "warning", f"Stopped at once by the user in phase {self._phase}: what follows it is missing."
        )
        if outlives_runs(self._plan.hosts) and not self._keep:
            self._running_on = tuple(await system.kill(timeout=_KILL_LIMIT))

    def _nemesis(self, pool: Any, system: RaftSystem) -> Nemesis:
        def ledger(event: FaultEvent) -> None:
            self._recorder.fault(event)
            if event.state == "injected":
                self._active[event.fault] = f"{event.kind} {event.shape}"
            elif event.state == "healed":
                self._active.pop(event.fault, None)

        return Nemesis(
            hosts=pool.hosts,
            control=system.control,
            clock=self.clock,
            record_event=ledger,
            record_op=self._recorder.nemesis_op,
        )

    async def _clients(self, system: RaftSystem, nemesis: Nemesis) -> None:
        self._enter("clients")
        plan = self._plan
        begin = self.clock()
        calm = plan.time_limit - max((step.until for step in plan.schedule), default=plan.time_limit)
        workload = suite.WORKLOADS[plan.workload]()
        self._workers = self._make_workers(system)

        faultless = asyncio.Event()  # because the schedule broke: nothing would strike any more
        stops = [self._stop.requested, self._recorder.broken, faultless]

        def over() -> bool:
            # Faults that slow hosts delay still meet clients, and the end stays calm; but not for ever.
            longer = min(max(0.0, nemesis.late() - calm / 2), plan.time_limit + _PATIENCE)
            end = begin + int((plan.time_limit + longer) * SECOND)
            return self.clock() >= end or any(event.is_set() for event in stops)

        def look(faults: asyncio.Task[None]) -> None:
            if not faults.cancelled() and faults.exception() is not None:
                faultless.set()

        gc.collect()
        gc.freeze()  # what exists now lives as long as the run: collections need not look at it
        loads = [worker.work(workload.generator(plan, number), over) for number, worker in enumerate(self._workers)]
        async with self._background(self._watch_loop(), self._sample(system), nemesis.keep_leases()):
            faults = asyncio.create_task(nemesis.run(plan.schedule, start=begin))
            faults.add_done_callback(look)
            try:
                await gather_workers(loads, stop=stops)
            finally:
                faults.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await faults
        over_time = (self.clock() - begin) / SECOND - plan.time_limit
        if nemesis.late() and over_time >= 1.0:
            self._recorder.event(
                "warning", f"Faults took slow hosts so long that clients went on for {over_time:.0f} s more."
            )

    async def _heal(self, system: RaftSystem, nemesis: Nemesis) -> None:
        plan = self._plan
        async with self._background(self._sample(system)):
            self._enter("heal")
            lost = await self._bounded("look after the hosts", self._unless_urgent(system.lost_hosts())) or {}
            for node, why in lost.items():
                self._recorder.event("error", why, host=node)
            failures = await self._bounded(
                "heal all faults", self._unless_urgent(nemesis.heal_all()), limit=_HEAL_LIMIT
            )
            for failure in _once(failures or (), lost):
                self._recorder.event("error", f"A fault could not be healed: {failure}")
            self._enter("recovery")
            deaths = await self._unless_urgent(system.unexpected_deaths(nemesis.held_down()))
            for node, evidence in deaths.items():
                self._recorder.event("error", f"{node}: its process died by itself.", node=node, **evidence)
            for node, fault in nemesis.found_dead().items():
                self._recorder.event(
                    "error", f"{node}: its process had died by itself before {fault} came to kill it.", node=node
                )
            await self._unless_urgent(system.restart_dead())
            ready = await self._recovered(system)
            if not ready:
                self._recorder.event(
                    "error", f"The cluster was not ready {plan.recovery_timeout:g} s after the final heal."
                )
            self._enter("final-reads")
            workload = suite.WORKLOADS[plan.workload]()
            reads = [
                worker.read_all(workload.final_requests(plan, number), attempts=5 if ready else 1)
                for number, worker in enumerate(self._workers)
            ]
            await gather_workers(reads, stop=[self._stop.urgent])

    async def _recovered(self, system: RaftSystem) -> bool:
        """Whether all nodes are ready again in time. Meanwhile clients ask: a node that stays slow keeps nobody from
        being served, and a cluster that serves nobody is known by clients that asked in vain."""
        plan, workload = self._plan, suite.WORKLOADS[self._plan.workload]()
        requests = [one for number in range(len(self._workers)) for one in workload.final_requests(plan, number)]
        until = self.clock() + int(plan.recovery_timeout * SECOND)
        asking = asyncio.create_task(ask_until_served(self._workers, requests, until=until, stop=[self._stop.urgent]))
        try:
            ready = await self._unless_urgent(system.wait_ready(timeout=plan.recovery_timeout))
            await asking
        finally:
            asking.cancel()
            await asyncio.wait([asking])
        return ready

    def _make_workers(self, system: RaftSystem) -> list[Worker]:
        connection = system.connection()
        return [
            Worker(
                number,
                self._plan,
                connection,
                clock=self.clock,
                record=self._recorder.client_op,
                tally=self._tally,
            )
            for number in range(self._plan.concurrency)
        ]

    # -- side by side with the clients ----------------------------------------------------------------------------

    async def _watch_loop(self) -> None:
        def tell(late: float) -> None:
            self._recorder.event("stall", f"The controller's event loop stood still for {late:.2f} s.", seconds=late)

        await watch_loop(self.clock, tell)

    async def _sample(self, system: RaftSystem) -> None:
        def tell(sample: StatusSample) -> None:
            self._recorder.sample(sample)
            if sample.role == "leader":
                self._leader = sample.node
            elif self._leader == sample.node:
                self._leader = None

        await sample_status(system, self._plan.nodes, self.clock, tell)

    @contextlib.asynccontextmanager
    async def _background(self, *tasks: Awaitable[None]) -> AsyncIterator[None]:
        running = [asyncio.ensure_future(task) for task in tasks]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            for result in await asyncio.gather(*running, return_exceptions=True):
                if isinstance(result, Exception):
                    self._recorder.event(
                        "warning", f"A task of the controller broke: {type(result).__name__}: {result}"
                    )

    # -- helpers --------------------------------------------------------------------------------------------------

    async def _set_up(self, work: Awaitable[_T]) -> _T:
        """Await a step before the clients, when there is nothing to save yet: the first Ctrl-C ends it."""
        try:
            return await unless(self._stop.requested, work)
        except StoppedAtOnce:
            raise Interrupted("Interrupted before the clients had started.") from None

    async def _unless_urgent(self, work: Awaitable[_T]) -> _T:
        """Await a step that the second Ctrl-C ends."""
        return await unless(self._stop.urgent, work, patience=_CANCEL_LIMIT)

    async def _bounded(self, what: str, work: Awaitable[_T], *, limit: float = _TEARDOWN_LIMIT) -> _T | None:
        """Await a step that must not stop the others: its failure is recorded, its time is bounded."""
        try:
            async with asyncio.timeout(limit):
                return await work
        except StoppedAtOnce:
            raise
        except TimeoutError:
            self._recorder.event("error", f"Could not {what} within {limit:g} s.")
        except Exception as error:  # whatever it was, the next step of the teardown must run
            self._recorder.event("error", f"Could not {what}: {error}")
        return None

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._recorder.event("phase", phase)

    def _fail(self, error: RaftbedError) -> None:
        """Note what ended the run, once. That its user did is no error."""
        if error is not self._failure and not isinstance(error, Interrupted):
            self._failure = error
            self._recorder.event("error", str(error), host=getattr(error, "host", ""))

    def _set_manifest(self, **changes: Any) -> None:
        self._manifest = replace(self._manifest, **changes)
        with contextlib.suppress(StoreError):
            self._directory.write_manifest(self._manifest)


def _once(failures: Iterable[str], lost: Collection[str]) -> list[str]:
    """Failed healings, each once, and one for each lost host, on which all fail; the ledger has them all."""
    by_cause: dict[str, str] = {}
    for failure in failures:
        host = failure.partition(": ")[0]
        by_cause.setdefault(host if host in lost else failure, failure)
    return list(by_cause.values())
