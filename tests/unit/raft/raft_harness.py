"""Several Raft cores, a network and disks, in virtual time: the same seed gives the same story.

The harness is a second driver of the core, beside `raftbed.nodes.raft.api`: it treats a `Ready` the same way (early
messages, then the disk, then the effects), and while the disk works takes in heartbeats and what a leader goes on with.
It judges all the while: every trace and every applied entry goes through `Invariants`, which asserts the properties of
figure 3 of the Raft paper.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
from raft_disk import Disk
from raft_judge import Invariants

from raftbed.nodes.raft import Config, State
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import (
    AbortSnapshot,
    AddNonVoter,
    Answered,
    Apply,
    ChangeMembership,
    ChunkStored,
    ClientRead,
    ClientWrite,
    Compact,
    Durable,
    Elect,
    Event,
    Failed,
    Initialize,
    Persist,
    Ready,
    Received,
    RemoveNonVoter,
    Respond,
    Restore,
    Send,
    SnapshotFailed,
    SnapshotTaken,
    StoreChunk,
    TakeSnapshot,
    TransferLeadership,
)
from raftbed.nodes.raft.messages import InstallSnapshotRequest, Payload, SnapshotMeta

MS = 1_000_000


@dataclass(eq=False)
class Outcome:
    """What came of a request; `value` is an answer or an exception."""

    done: bool = False
    value: Any = None
    wanted: int = 0  # for reads: what was committed, anywhere, when it was asked


class Node:
    """One core with its disk. Restarting makes a new core on the same disk."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.disk = Disk()
        self.stall: int | None = None  # how long each of its writes takes, where it is not what those of others do
        self.applied: list[Any] = []  # payloads: the state machine
        self.snapshotting: SnapshotMeta | None = None
        self.inbox: list[Event] = []
        self.core: Core | None = None
        self.writing: Persist | None = None
        self.boot = 0
        self.ticking: int | None = None

    def start(self) -> None:
        cluster = self.cluster
        self.boot += 1
        self.applied, self.inbox, self.writing, self.ticking = [], [], None, None
        self.snapshotting = None
        self.disk.recover()
        if self.disk.snapshot is not None:
            self.applied = decoded(self.disk.data)
        random = Random(f"{cluster.seed}:{self.name}:{self.boot}")
        self.core = Core(
            self.name,
            cluster.config,
            random,
            hard_state=self.disk.hard_state,
            entries=list(self.disk.entries),
            now=cluster.now,
            base=self.disk.base,
            snapshot=self.disk.snapshot,
        )
        self.core.start()
        self.pump()

    def crash(self) -> None:
        """Lose everything that is not on disk; of a write under way, any part that a power failure may leave."""
        core, disk = self.core, self.disk
        if core is not None and core.leadership is not None and core.commit_index > core.durable_index:
            self.cluster.reached.add("a leader dies that has committed what its disk lacks")
        if disk.snapshot is not None and disk.snapshot.index > disk.base.index + len(disk.entries):
            self.cluster.reached.add("a node dies whose snapshot is beyond its log on disk")
        if self.writing is not None:
            kept = self.cluster.random.choice(["nothing", "beginning", "all"])
            if kept == "beginning":
                part = self.cluster.random.randint(0, len(self.writing.entries))
                self.disk.write(msgspec.structs.replace(self.writing, entries=self.writing.entries[:part]))
            elif kept == "nothing" and self.writing.install is not None and self.cluster.random.random() < 0.5:
                self.disk.write(Persist(None, None, (), install=self.writing.install))
            elif kept == "all":
                self.disk.write(self.writing)
        self.writing = self.core = None

    def take(self, event: Event) -> None:
        if self.core is None:
            return
        if self.writing is not None and isinstance(event, Received):
            answer = self.core.hear(event, self.cluster.now)
            if answer is not None:
                event.token(answer)
                return
        self.inbox.append(event)
        self.pump()

    def pump(self) -> None:
        core = self.core
        assert core is not None
        if self.writing is not None and core.goes_on_while_writing:
            self.pump_while_writing(core)
        while self.writing is None:
            inbox, self.inbox = self.inbox, []
            for event in inbox:
                core.step(event, self.cluster.now)
            core.tick(self.cluster.now)
            ready = core.ready()
            if ready is None:
                break
            for trace in ready.traces:
                self.cluster.invariants.see(core, trace)
            for message in ready.early:
                self.cluster.carry(self, message)
            if ready.persist is not None:
                self.write(ready)
            if ready.independent:
                self.do(ready.effects)
        self.schedule_tick()

    def pump_while_writing(self, core: Core) -> None:
        self.inbox = core.step_while_writing(self.inbox, self.cluster.now)
        if any(isinstance(event, Received) and event.request.term > core.term for event in self.inbox):
            self.cluster.reached.add("who deposes a leader waits for its disk")
        ready = core.ready_while_writing()
        if ready is not None:
            self.note_reached(core, ready)
            for trace in ready.traces:
                self.cluster.invariants.see(core, trace)
            for message in ready.early:
                self.cluster.carry(self, message)
            self.do(ready.effects)

    def note_reached(self, core: Core, ready: Ready) -> None:
        assert self.writing is not None
        reached = self.cluster.reached
        for effect in ready.effects:
            if isinstance(effect, Apply) and effect.entries[-1].index > core.durable_index:
                reached.add("a leader applies what its disk lacks")
            if isinstance(effect, TakeSnapshot) and effect.snapshot.index > core.durable_index:
                reached.add("a snapshot is taken of what the disk lacks")
            if isinstance(effect, Apply) and self.writing.compact_to is not None:
                reached.add("a leader commits while its log is compacted")
            if isinstance(effect, Apply) and core.membership.is_joint:
                reached.add("a leader commits in a joint membership while its disk works")

    def write(self, ready: Ready) -> None:
        self.writing = ready.persist
        base = ready.persist.compact_to if ready.persist is not None else None
        if base is not None and ready.independent and self.core is not None and base.index > self.core.durable_index:
            self.cluster.reached.add("a leader's log is compacted beyond its end on disk")
        boot = self.boot
        time = self.cluster.disk_delay() if self.stall is None else self.stall
        self.cluster.after(time, lambda: self.written(boot, () if ready.independent else ready.effects))

    def written(self, boot: int, effects: Sequence[Any]) -> None:
        if self.core is None or self.boot != boot:
            return
        assert self.writing is not None
        self.disk.write(self.writing)
        self.writing = None
        self.core.step(Durable(), self.cluster.now)
        self.do(effects)
        self.pump()

    def do(self, effects: Sequence[Any]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.cluster.carry(self, effect)
            elif isinstance(effect, Respond):
                effect.token(effect.value)
            elif isinstance(effect, Apply):
                self.cluster.invariants.see_applied(effect.entries)
                for entry in effect.entries:
                    self.applied.append(entry.payload)
                    if entry.index in effect.tokens:
                        effect.tokens[entry.index]((entry.index, entry.payload))
                    assert len(self.applied) == entry.index, "applied once, in order"
            else:
                self.do_snapshot(effect)

    def do_snapshot(self, effect: TakeSnapshot | AbortSnapshot | StoreChunk | Restore) -> None:
        cluster, boot = self.cluster, self.boot

        def later(delay: int, action: Callable[[], None]) -> None:
            cluster.after(delay, lambda: action() if self.core is not None and self.boot == boot else None)

        match effect:
            case TakeSnapshot(snapshot):
                assert len(self.applied) == snapshot.index, "captured at the right moment"
                data = encoded(self.applied)
                written = msgspec.structs.replace(snapshot, size=len(data), checksum=zlib.crc32(data))
                self.snapshotting = snapshot
                later(cluster.disk_delay() * 5, lambda: self.snapshot_written(snapshot, written, data))
            case AbortSnapshot():
                self.snapshotting = None
            case StoreChunk(token, request):
                before = self.disk.received.get(request.snapshot.id, b"")[: request.offset]
                assert len(before) == request.offset, "no gaps"
                whole = before + request.data
                self.disk.received = {request.snapshot.id: whole}
                sound = not request.done or zlib.crc32(whole) == request.snapshot.checksum
                stored = ChunkStored(token, request, len(whole) if sound else 0, request.done and sound)
                later(cluster.disk_delay() * 2, lambda: self.take(stored))
            case Restore(snapshot):
                self.applied = decoded(self.disk.data)
                assert len(self.applied) == snapshot.index

    def snapshot_written(self, asked: SnapshotMeta, written: SnapshotMeta, data: bytes) -> None:
        if self.snapshotting is not asked:
            self.take(SnapshotFailed(asked.index, "aborted"))
            return
        if self.disk.snapshot is None or written.index > self.disk.snapshot.index:
            self.disk.snapshot, self.disk.data = written, data
        self.take(SnapshotTaken(written))

    def schedule_tick(self) -> None:
        assert self.core is not None
        deadline = self.core.deadline_while_writing if self.writing is not None else self.core.deadline
        if deadline is None or deadline == self.ticking:
            return
        self.ticking = deadline
        boot = self.boot
        self.cluster.at(max(deadline, self.cluster.now), lambda: self.ticked(boot, deadline))

    def ticked(self, boot: int, deadline: int) -> None:
        if self.core is not None and self.boot == boot and self.ticking == deadline:
            self.ticking = None
            if self.writing is not None:
                for message in self.core.beat(self.cluster.now):
                    self.cluster.carry(self, message)
            self.pump()


def encoded(applied: Sequence[Any]) -> bytes:
    return msgspec.msgpack.encode(list(applied))


def decoded(data: bytes) -> list[Any]:
    return msgspec.msgpack.decode(data, type=list[Payload])


class Cluster:
    """Cores n1 to nN; `run` lets virtual time go by.

    Parameters:
        size: how many.
        seed: of everything random.
        initialized: begin as a cluster; otherwise all nodes are pristine.
        spare: more nodes, pristine, that are no members of it.
        options: fields of `Config`.
    """

    def __init__(self, size: int, *, seed: int = 0, initialized: bool = True, spare: int = 0, **options: Any) -> None:
        self.config = Config("test", **options)
        self.seed = seed
        self.random = Random(f"{seed}:network")
        self.now = 0
        self.invariants = Invariants()
        self.heap: list[tuple[int, int, Callable[[], None]]] = []
        self.order = 0
        self.cut: set[tuple[str, str]] = set()  # from, to
        self.loss = 0.0
        self.duplication = 0.0
        self.delay = (1 * MS, 2 * MS)
        self.disk_time = (MS // 10, MS // 5)
        self.sent: list[tuple[str, Send]] = []
        self.reached: set[str] = set()  # situations that are rare, and that stories are to come to
        self.nodes = {f"n{number}": Node(self, f"n{number}") for number in range(1, size + spare + 1)}
        self.founders = tuple(self.nodes)[:size]
        for node in self.nodes.values():
            node.start()
        if initialized:
            self.initialize("n1")

    # -- time -----------------------------------------------------------------------------------------------------

    def at(self, time: int, action: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.heap, (time, self.order, action))

    def after(self, delay: int, action: Callable[[], None]) -> None:
        self.at(self.now + delay, action)

    def run(self, milliseconds: float) -> None:
        end = self.now + int(milliseconds * MS)
        while self.heap and self.heap[0][0] <= end:
            self.now, _, action = heapq.heappop(self.heap)
            action()
        self.now = end

    def run_until(self, condition: Callable[[], Any], limit: float = 5000) -> Any:
        """Let time go by until `condition` holds, at most `limit` milliseconds; returns what it gave."""
        end = self.now + int(limit * MS)
        while not (held := condition()):
            assert self.heap and self.heap[0][0] <= end, f"not within {limit} ms"
            self.now, _, action = heapq.heappop(self.heap)
            action()
        return held

    def disk_delay(self) -> int:
        return self.random.randint(*self.disk_time)

    # -- network --------------------------------------------------------------------------------------------------

    def carry(self, sender: Node, message: Send) -> None:
        """Bring a request to its peer and the answer back, or neither, as the network pleases."""
        if isinstance(message.request, InstallSnapshotRequest):
            message = self.with_data(sender, message, message.request)
        boot = sender.boot
        settled: list[bool] = []
        self.sent.append((sender.name, message))

        def back(event: Event) -> None:
            if not settled and sender.boot == boot:
                settled.append(True)
                sender.take(event)

        def answer(response: Any) -> None:
            if self.passes(message.to, sender.name) and not isinstance(response, Exception):
                self.after(self.random.randint(*self.delay), lambda: back(Answered(message, response)))

        def arrive(token: Callable[[Any], None]) -> None:
            self.nodes[message.to].take(Received(token, message.method, message.request))

        if self.passes(sender.name, message.to):
            self.after(self.random.randint(*self.delay), lambda: arrive(answer))
            if self.random.random() < self.duplication:
                self.after(self.random.randint(*self.delay) * 3, lambda: arrive(lambda response: None))
        self.after(self.config.election_timeout_min * MS, lambda: back(Failed(message)))

    def with_data(self, sender: Node, message: Send, request: InstallSnapshotRequest) -> Send:
        """The piece of the snapshot that the driver puts in; nothing, if it has given way to another."""
        disk, size = sender.disk, self.config.snapshot_max_chunk_size
        assert disk.snapshot is not None
        data = disk.data[request.offset : request.offset + size] if disk.snapshot.id == request.snapshot.id else b""
        done = request.offset + len(data) == request.snapshot.size
        msgspec.structs.force_setattr(message, "request", msgspec.structs.replace(request, data=data, done=done))
        return message

    def passes(self, sender: str, receiver: str) -> bool:
        return (sender, receiver) not in self.cut and self.random.random() >= self.loss

    def partition(self, *groups: Iterable[str]) -> None:
        """Nodes of different groups do not hear each other."""
        of = {name: number for number, group in enumerate(groups) for name in group}
        self.cut = {(a, b) for a in self.nodes for b in self.nodes if of.get(a) != of.get(b)}

    def isolate(self, name: str) -> None:
        self.partition([name], [other for other in self.nodes if other != name])

    def heal(self) -> None:
        self.cut = set()

    # -- what tests do --------------------------------------------------------------------------------------------

    def core(self, name: str) -> Core:
        core = self.nodes[name].core
        assert core is not None, f"{name} is down"
        return core

    def ask(self, name: str, make: Callable[[Callable[[Any], None]], Event]) -> Outcome:
        outcome = Outcome(wanted=self.invariants.committed[0])

        def token(value: Any) -> None:
            assert not outcome.done, "answered twice"
            outcome.done, outcome.value = True, value

        self.nodes[name].take(make(token))
        return outcome

    def initialize(self, name: str) -> Outcome:
        return self.ask(name, lambda token: Initialize(token, self.founders))

    def write(self, name: str, data: Any) -> Outcome:
        return self.ask(name, lambda token: ClientWrite(token, data, data))

    def read(self, name: str) -> Outcome:
        return self.ask(name, ClientRead)

    def add_non_voter(self, name: str, node: str) -> Outcome:
        return self.ask(name, lambda token: AddNonVoter(token, node))

    def remove_non_voter(self, name: str, node: str) -> Outcome:
        return self.ask(name, lambda token: RemoveNonVoter(token, node))

    def change(self, name: str, *members: str) -> Outcome:
        return self.ask(name, lambda token: ChangeMembership(token, members))

    def transfer(self, name: str, target: str | None = None) -> Outcome:
        return self.ask(name, lambda token: TransferLeadership(token, target))

    def compact(self, name: str) -> Outcome:
        return self.ask(name, Compact)

    def elect(self, name: str) -> None:
        self.nodes[name].take(Elect())

    def leader(self) -> str | None:
        """The leader of the latest term, if any node leads."""
        leading = [
            node.core for node in self.nodes.values() if node.core is not None and node.core.state is State.LEADER
        ]
        return max(leading, key=lambda core: core.term).id if leading else None

    def settled(self) -> str | None:
        """The leader, once everyone of the membership who is up follows it."""
        leader = self.leader()
        if leader is None:
            return None
        up = [self.nodes[name].core for name in self.core(leader).membership.nodes()]
        return leader if all(core.leader_id == leader for core in up if core is not None) else None

    def together(self) -> list[str] | None:
        """The nodes of the membership, once all of them are up and have applied all that the leader has."""
        leader = self.leader()
        if leader is None:
            return None
        core = self.core(leader)
        nodes = [self.nodes[name] for name in core.membership.nodes()]
        if core.membership.is_joint or any(node.core is None for node in nodes):
            return None
        done = all(len(node.applied) == core.log.last_index for node in nodes)
        return [node.name for node in nodes] if done else None

    def restart(self, name: str) -> None:
        self.nodes[name].crash()
        self.nodes[name].start()
