"""One simulated run, from start to final reads: the phases of `raftbed.run`, in virtual time.

A run ends by itself: every operation, every wait and every phase has a bound in virtual time. Nodes that talk without
end would make that time long, so that there is a bound on events, too (`raftbed.sim.traffic`). What goes wrong in the
cluster is recorded, for the checks to judge; what raises here is a defect of the simulator.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from raftbed import suite
from raftbed.clients import Connection, Tally, Worker
from raftbed.model import SECOND, Op, Plan
from raftbed.nodes.raft import Config, State, Trace
from raftbed.nodes.raft.events import Initialize, Send
from raftbed.sim.clients import SimulatedConnection
from raftbed.sim.faults import KINDS, Kind, Nemesis
from raftbed.sim.message_log import MessageLog
from raftbed.sim.network import Network
from raftbed.sim.node import SimulatedNode
from raftbed.sim.rare_points import RarePoints
from raftbed.sim.recording import Recording, process_record
from raftbed.sim.replies import Node
from raftbed.sim.timeline import Task, Timeline, all_of
from raftbed.sim.traffic import Limits, Traffic
from raftbed.store import StatusSample
from raftbed.workloads.base import Request

_SAMPLE_INTERVAL = 0.25  # seconds
_SAMPLES_IN_A_SECOND = 4
_POLL = 0.05
_STEADY = 1.0  # seconds for which a leader must last where servers that were removed may yet depose it
_SETTLE = 5.0  # seconds that nodes have to apply the same, once everything is served again
_LIMIT = 100_000 * SECOND
_LIMITS = Limits()
_RARE_COLLECTIONS = (100_000, 50, 1000)  # nearly all that is made here is kept: to look at it often is in vain
_COUNTED = frozenset(("append", "role", "truncate", "snapshot", "boot"))
_SEGMENT_SIZES = (64 << 20, 64 << 20, 16 << 10)  # small ones, so that logs of several segments are recovered, too


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let the garbage collector look rarely at what a simulation makes."""
    before = gc.get_threshold()
    gc.set_threshold(*_RARE_COLLECTIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of a script.

    Attributes:
        at: when, in seconds after the clients start; None: among the final reads.
        worker: whose.
        request: what.
    """

    at: float | None
    worker: int
    request: Request


class _NoToken:
    """Nobody waits; implements `raftbed.sim.replies.Waiting`."""

    def answer(self, node: Node, value: Any) -> None:
        """See `Waiting`."""

    def reset(self, node: Node) -> None:
        """See `Waiting`."""


class Simulation:
    """Executes one plan; implements `raftbed.sim.replies.Observer`. The nodes are cores without their shell.

    Parameters:
        plan: what to do.
        script: the operations, spelled out, instead of what the workload's generators produce.
        messages: record every message between nodes.
        limits: what is too much: beyond, the simulation is cut off.
    """

    def __init__(
        self, plan: Plan, *, script: Sequence[Call] | None = None, messages: bool = False, limits: Limits = _LIMITS
    ) -> None:
        self.plan = plan
        self.timeline = Timeline()
        self.recording = Recording(plan, traces={n: [] for n in plan.nodes}, logs={n: [] for n in plan.nodes})
        self._script = script
        self._log_of_messages = MessageLog() if messages else None
        if self._log_of_messages is not None:
            self.recording.messages = self._log_of_messages.messages
        self._tally = Tally()
        self._coverage: Counter[str] = Counter()
        self._boots: dict[str, int] = {}
        self._unsynced: dict[str, None] = {}
        self._sampled = True
        self._cores: dict[str, SimulatedNode] = {}
        self._connections: list[SimulatedConnection] = []
        cluster = f"raftbed {plan.test} {plan.seed}"
        self._traffic = Traffic(plan.nodes, Config.from_mapping(cluster, dict(plan.node_options)), limits)
        self._rare_points = RarePoints(plan.rare_points, plan.seed)
        self._network = self._make_network()
        self._random = Random(f"{plan.seed}:simulation")
        self.nodes = self._make_nodes(cluster, self._random.choice(_SEGMENT_SIZES))
        self.nemesis = Nemesis(
            self.timeline,
            self.nodes,
            self._network,
            seed=plan.seed,
            record_event=self.recording.faults.append,
            record_op=self.recording.ops.append,
            kinds=self._kinds,
        )
        self._workers = self._make_workers()

    # -- what is simulated ----------------------------------------------------------------------------------------

    _kinds: Mapping[str, Kind] = KINDS
    _limit = _LIMIT

    def _make_network(self) -> Network:
        return Network(self.timeline, self.plan.nodes, self.plan.seed)

    def _make_nodes(self, cluster: str, segment_size: int) -> Mapping[str, Node]:
        for name in self.plan.nodes:
            config = Config.from_mapping(cluster, self.plan.options_of(name))
            self._cores[name] = node = SimulatedNode(
                name, self._cores, config, self.timeline, self._network,
                seed=self.plan.seed, segment_size=segment_size, observer=self,
            )  # fmt: skip
            node.make_core = self._rare_points.core_of(node)
        return self._cores

    def _connection(self, number: int) -> Connection:
        random = Random(f"{self.plan.seed}:client-network:{number}")
        self._connections.append(SimulatedConnection(self.timeline, self._cores, random))
        return self._connections[-1]

    async def _stop(self) -> None:
        """Nodes without a shell are just left alone."""

    def _no_end(self) -> Exception:
        return AssertionError("the simulation has no end")

    def _bound_events(self) -> None:
        """More events than this are too many."""
        self.timeline.most = self._traffic.events_with_present_second(self._requests())

    def _requests(self) -> int:
        """That clients have sent so far."""
        return sum(connection.attempts for connection in self._connections)

    # -- running --------------------------------------------------------------------------------------------------

    def run(self) -> Recording:
        """Go through all phases."""
        with rare_collections():
            self._bound_events()
            main = Task(self._phases(), self.timeline.end)
            Task(self._sample())
            ended = self.timeline.run(limit=self._limit)
            while ended and not main.done:  # it came to its bound, which clients that never pause have moved by now
                self._bound_events()
                if self.timeline.executed >= self.timeline.most:
                    break
                ended = self.timeline.run(limit=self._limit)
        if not ended:
            raise self._no_end()
        recording = self.recording
        if not main.done:
            self._cut_off()
        for name in self._boots:
            recording.traces[name].append((self.timeline.now, "end", {}))
        recording.duration = self.timeline.now
        recording.state = "ended" if main.done else "interrupted"
        recording.counts = {
            "events": self.timeline.executed,
            "messages": self._network.carried,
            "ok": self._tally.ok,
            "fail": self._tally.fail,
            "info": self._tally.info,
            "membership_changes": self.nemesis.operators.changes,
            "transfers": self.nemesis.operators.transfers,
            "own_options": len({name for options in self.plan.own_options.values() for name in options}),
            **{name: self._coverage[name] for name in sorted(self._coverage)},
            **self._rare_points.counts(),
        }
        recording.draws = [self._random.random()]
        return recording

    # -- phases ---------------------------------------------------------------------------------------------------

    async def _phases(self) -> None:
        plan, sleep = self.plan, self.timeline.sleep
        self._enter("start")
        for node in self.nodes.values():
            self._start(node)
            await sleep(self._random.random() * 0.01)
        await sleep(0.01)
        self._initialize()
        if not await self._ready(plan.recovery_timeout):
            self._problem(f"The nodes elected no leader within {plan.recovery_timeout:g} s of their start.")
        self._enter("clients")
        self.nemesis.schedule(plan.schedule)
        begin = self.timeline.now
        await all_of([self._work(worker, number, begin) for number, worker in enumerate(self._workers)])
        await sleep(max(0.0, plan.time_limit - (self.timeline.now - begin) / SECOND))
        self._enter("heal")
        self.nemesis.heal_all()
        self._rare_points.over = True
        self._enter("recovery")
        self.nemesis.machines.restart_dead()
        ready = await self._ready(plan.recovery_timeout)
        if not self.nemesis.operators.is_done:
            ready = False
            self._problem(f"The membership could not be restored in {plan.recovery_timeout:g} s after the final heal.")
        if not ready:
            self._problem(f"The cluster was not ready {plan.recovery_timeout:g} s after the final heal.")
        self._enter("final-reads")
        readers = self._readers()
        await all_of([self._read(worker, number, readers, ready) for number, worker in enumerate(self._workers)])
        self._enter("settle")
        await self._settled()
        self._sample_all()
        self._sampled = False
        await self._stop()
        self._look_at_traffic()
        self._enter("ended", busiest=asdict(self._traffic.busiest))

    def _initialize(self) -> None:
        first = self.nodes[self.plan.nodes[0]]
        if first.running:
            first.take(Initialize(_NoToken(), self.plan.nodes))

    async def _work(self, worker: Worker, number: int, begin: int) -> None:
        if self._script is None:
            end = begin + int(self.plan.time_limit * SECOND)
            generator = suite.WORKLOADS[self.plan.workload]().generator(self.plan, number)
            await worker.work(generator, lambda: self.timeline.now >= end)
            return
        for call in self._script:
            if call.worker == number and call.at is not None:
                due = begin + int(call.at * SECOND)
                await self.timeline.sleep(max(0, due - self.timeline.now) / SECOND)
                await worker.operate(call.request)

    def _readers(self) -> list[int]:
        """The clients that can reach a member: those that know only a server that was removed for good do not count."""
        members, plan = self._members(), self.plan
        return [number for number in range(plan.concurrency) if plan.nodes[number % len(plan.nodes)] in members]

    async def _read(self, worker: Worker, number: int, readers: Sequence[int], ready: bool) -> None:
        if self._script is None:
            workload, share = suite.WORKLOADS[self.plan.workload](), range(self.plan.concurrency)
            dealt = {other: readers[other % len(readers)] if other not in readers else other for other in share}
            own = [other for other in share if dealt[other] == number] if readers else [number]
            requests = [request for other in own for request in workload.final_requests(self.plan, other)]
        else:
            requests = [call.request for call in self._script if call.worker == number and call.at is None]
        await worker.read_all(requests, attempts=5 if ready else 1)

    async def _ready(self, timeout: float) -> bool:
        """Every member answers, one leads, all follow it in its term and have applied what it had."""
        until = self.timeline.now + int(timeout * SECOND)
        target: tuple[str, int, int] | None = None
        since = self.timeline.now
        while self.timeline.now < until:
            said = [node.metrics() for node in self._members().values()]
            metrics = [one for one in said if one is not None]
            leaders = [one for one in metrics if one.state is State.LEADER]
            if len(metrics) == len(said) and len(leaders) == 1:
                lead = leaders[0]
                self.nemesis.operators.look(lead.membership_config.members)
                if self.nemesis.operators.is_done and all(one.current_leader == lead.id for one in metrics):
                    if target is None or target[:2] != (lead.id, lead.current_term):
                        target = (lead.id, lead.current_term, lead.last_log_index)
                        since = self.timeline.now
                    lasts = not self.nemesis.operators.gone or self.timeline.now - since >= _STEADY * SECOND
                    if lasts and all(one.last_applied >= target[2] for one in metrics):
                        return True
            await self.timeline.sleep(_POLL)
        return False

    async def _settled(self) -> None:
        """Wait until all nodes have applied the same, but not for ever."""
        until = self.timeline.now + int(_SETTLE * SECOND)
        while self.timeline.now < until:
            metrics = [node.metrics() for node in self._members().values()]
            if all(metrics) and len({(one.last_applied, one.last_log_index) for one in metrics if one}) == 1:
                return
            await self.timeline.sleep(_POLL)

    def _members(self) -> Mapping[str, Node]:
        """All nodes but those that operators removed for good."""
        gone = self.nemesis.operators.gone
        return {name: node for name, node in self.nodes.items() if name not in gone} if gone else self.nodes

    def _make_workers(self) -> list[Worker]:
        plan = self.plan
        workers = []
        for number in range(plan.concurrency):
            workers.append(
                Worker(
                    number,
                    plan,
                    self._connection(number),
                    clock=lambda: self.timeline.now,
                    record=self.recording.ops.append,
                    tally=self._tally,
                    sleep=self.timeline.sleep,
                )
            )
        return workers

    # -- side by side with the clients ----------------------------------------------------------------------------

    async def _sample(self) -> None:
        taken = 0
        while self._sampled:
            self._sample_all()
            await self.timeline.sleep(_SAMPLE_INTERVAL)
            taken += 1
            if taken % _SAMPLES_IN_A_SECOND == 0:
                self._look_at_traffic()

    def _look_at_traffic(self) -> None:
        """A second is over: was more sent than there was reason to?"""
        for busy in self._traffic.second_over(self._requests()):
            what = f"{busy.node} sent {busy.sent} messages within a second, when it had reason for {busy.reasons}."
            self.recording.event(self.timeline.now, "warning", what, storm=asdict(busy))
        self._bound_events()

    def _cut_off(self) -> None:
        """The simulation takes too many events: what it shows up to here is all that there will be."""
        self._look_at_traffic()
        what = f"The simulation was cut off after {self.timeline.executed} events: many times more than it should take."
        self.recording.event(self.timeline.now, "warning", what, cut_off=True)

    def _sample_all(self) -> None:
        for name, node in self.nodes.items():
            said = node.metrics()
            sample = StatusSample(self.timeline.now, name, reachable=False)
            if said is not None:
                sample = StatusSample(
                    self.timeline.now, name, True, said.state.value, said.current_term, said.current_leader,
                    said.last_log_index, said.commit_index, said.last_applied,
                )  # fmt: skip
            self.recording.status.append(sample)

    # -- Observer -------------------------------------------------------------------------------------------------

    def traced(self, node: Node, traces: Sequence[Trace]) -> None:
        """See `Observer`."""
        now, name = self.timeline.now, node.name
        kept = self.recording.traces[name]
        if self._boots.get(name) != node.boot:
            if name in self._boots:
                kept.append((now, "end", {}))  # whatever ended it, all that it did was traced
            self._boots[name] = node.boot
            kept.append((now, "process", process_record(node.boot)))
        for trace in traces:
            event = trace.event
            kept.append((now, event, trace.fields))
            if event in _COUNTED:
                self._count(name, trace)
        self.nemesis.looks(node, traces)

    def sent(self, node: SimulatedNode, message: Send) -> None:
        """See `Observer`."""
        self._traffic.sent(node.name, message)
        if self._log_of_messages is not None:
            self._log_of_messages.sent(self.timeline.now, node.name, message)

    def answered(self, node: SimulatedNode, message: Send, sender: SimulatedNode, response: Any) -> None:
        """See `Observer`."""
        if self._log_of_messages is not None:
            self._log_of_messages.answered(self.timeline.now, message, sender.name, response)

    def arrived(self, node: SimulatedNode, message: Send) -> None:
        """See `Observer`."""
        if self._log_of_messages is not None:
            self._log_of_messages.arrived(self.timeline.now, node.name, message)

    def unsynced(self, node: Node, count: int) -> None:
        """See `Observer`."""
        if node.name not in self._unsynced:
            self._unsynced[node.name] = None
            what = f"{node.name} went on as if its write were durable, with {count} bytes not synced."
            self.recording.event(self.timeline.now, "error", what, unsynced=count, by=node.name)

    def ended(self, node: Node, reason: str) -> None:
        """See `Observer`."""
        excused = self._is_excused(node)
        self._log(node, f"{'stops' if excused else 'CRITICAL: stops'}: {reason}")
        if not excused:
            detail: Mapping[str, Any] = {"node": node.name, "reason": reason, "log": reason}
            self.recording.event(self.timeline.now, "error", f"{node.name}: its process died by itself.", **detail)

    # -- helpers --------------------------------------------------------------------------------------------------

    def _count(self, name: str, trace: Trace) -> None:
        if trace.event == "append":
            self._traffic.appended(name, trace.fields)
        elif trace.event == "role":
            if trace.fields["role"] == "leader":
                self._coverage["leaderships"] += 1
            elif trace.fields["role"] == "candidate":
                self._coverage["candidacies"] += 1
        elif trace.event == "truncate":
            self._coverage["truncations"] += 1
        elif trace.event == "snapshot":
            self._coverage["installs" if trace.fields["installed"] else "snapshots"] += 1
        elif trace.event == "boot":
            self._coverage["boots"] += 1

    def _is_excused(self, node: Node) -> bool:
        return self.nemesis.machines.is_excused(node.name)

    def _start(self, node: Node) -> None:
        node.start()

    def _log(self, node: Node, text: str) -> None:
        self.recording.logs[node.name].append(f"{self.timeline.now / SECOND:.6f} {node.name} boot {node.boot}: {text}")

    def _problem(self, text: str) -> None:
        self.recording.event(self.timeline.now, "error", text)

    def _enter(self, phase: str, **detail: Any) -> None:
        self.recording.event(self.timeline.now, "phase", phase, **detail)


def operations(ops: Sequence[Op]) -> int:
    """How many operations a history holds."""
    return sum(op.type == "invoke" for op in ops)
