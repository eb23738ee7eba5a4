"""Several Raft cores, a network and disks, in virtual time: the same seed gives the same story.

The harness is a second driver of the core, beside `raftbed.nodes.raft.api`: it treats a `Ready` the same way (early
messages, then the disk, then the effects) and takes nothing in while the disk works. It judges all the while: every
trace and every applied entry goes through `Invariants`, which asserts the properties of figure 3 of the Raft paper.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from raftbed.nodes.raft import Config, Entry, HardState, State
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import (
    Answered,
    Apply,
    ClientRead,
    ClientWrite,
    Durable,
    Elect,
    Event,
    Failed,
    Initialize,
    Persist,
    Ready,
    Received,
    Respond,
    Send,
    Trace,
)

MS = 1_000_000


@dataclass(eq=False)
class Outcome:
    """What came of a request; `value` is an answer or an exception."""

    done: bool = False
    value: Any = None
    wanted: int = 0  # for reads: what was committed, anywhere, when it was asked


@dataclass
class Disk:
    """What survives a crash."""

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)

    def write(self, persist: Persist) -> None:
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
        if persist.truncate_from is not None:
            del self.entries[persist.truncate_from - 1 :]
        self.entries.extend(persist.entries)


@dataclass
class Invariants:
    """The Raft paper's figure 3, asserted on every step."""

    leaders: dict[int, str] = field(default_factory=dict)  # election safety
    prefixes: dict[tuple[int, int], str] = field(default_factory=dict)  # log matching
    applied: dict[int, Entry] = field(default_factory=dict)  # state machine safety
    votes: dict[tuple[str, int], str] = field(default_factory=dict)
    committed: tuple[int, int, str] = (0, 0, "")  # index, term of the commit, hash; leader completeness

    def see(self, core: Core, trace: Trace) -> None:
        term = trace.fields["term"]
        if trace.event == "role" and trace.fields["role"] == "leader":
            assert self.leaders.setdefault(term, core.id) == core.id, f"two leaders in term {term}"
            index, committed_in, digest = self.committed
            if committed_in < term:
                assert core.log.last_index >= index, f"leader of term {term} lacks committed entry {index}"
                assert core.log.prefix_hash(index) == digest or not index, f"leader of term {term} differs at {index}"
        elif trace.event == "append":
            places = range(trace.fields["first"], trace.fields["last"] + 1)
            for place in zip(places, trace.fields["terms"], trace.fields["hashes"], strict=True):
                assert self.prefixes.setdefault(place[:2], place[2]) == place[2], f"logs differ at {place[:2]}"
        elif trace.event == "vote":
            candidate = trace.fields["candidate"]
            assert self.votes.setdefault((core.id, term), candidate) == candidate, f"{core.id} voted twice in {term}"
        elif trace.event == "commit" and trace.fields["index"] > self.committed[0]:
            self.committed = (trace.fields["index"], term, trace.fields["hash"])

    def see_applied(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            assert self.applied.setdefault(entry.index, entry) == entry, f"two entries applied at {entry.index}"


class Node:
    """One core with its disk. Restarting makes a new core on the same disk."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.disk = Disk()
        self.applied: list[Any] = []
        self.inbox: list[Event] = []
        self.core: Core | None = None
        self.writing: Persist | None = None
        self.boot = 0
        self.ticking: int | None = None

    def start(self) -> None:
        cluster = self.cluster
        self.boot += 1
        self.applied, self.inbox, self.writing, self.ticking = [], [], None, None
        random = Random(f"{cluster.seed}:{self.name}:{self.boot}")
        self.core = Core(
            self.name,
            cluster.config,
            random,
            hard_state=self.disk.hard_state,
            entries=list(self.disk.entries),
            now=cluster.now,
        )
        self.core.start()
        self.pump()

    def crash(self) -> None:
        """Lose everything that is not on disk; of a write under way, any part that a power failure may leave."""
        if self.writing is not None:
            kept = self.cluster.random.choice(["nothing", "beginning", "all"])
            if kept == "beginning":
                part = self.cluster.random.randint(0, len(self.writing.entries))
                self.disk.write(
                    Persist(self.writing.hard_state, self.writing.truncate_from, self.writing.entries[:part])
                )
            elif kept == "all":
                self.disk.write(self.writing)
        self.writing = self.core = None

    def take(self, event: Event) -> None:
        if self.core is None:
            return
        self.inbox.append(event)
        self.pump()

    def pump(self) -> None:
        core = self.core
        assert core is not None
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
            if ready.persist is None:
                self.do(ready.effects)
                continue
            self.write(ready)
        self.schedule_tick()

    def write(self, ready: Ready) -> None:
        self.writing = ready.persist
        boot = self.boot
        self.cluster.after(self.cluster.disk_delay(), lambda: self.written(boot, ready.effects))

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
            else:
                assert isinstance(effect, Apply)
                self.cluster.invariants.see_applied(effect.entries)
                for entry in effect.entries:
                    self.applied.append(entry.payload)
                    if entry.index in effect.tokens:
                        effect.tokens[entry.index]((entry.index, entry.payload))

    def schedule_tick(self) -> None:
        assert self.core is not None
        deadline = self.core.deadline
        if deadline is None or deadline == self.ticking or self.writing is not None:
            return
        self.ticking = deadline
        boot = self.boot
        self.cluster.at(max(deadline, self.cluster.now), lambda: self.ticked(boot, deadline))

    def ticked(self, boot: int, deadline: int) -> None:
        if self.core is not None and self.boot == boot and self.ticking == deadline:
            self.ticking = None
            self.pump()


class Cluster:
    """Cores n1 to nN; `run` lets virtual time go by.

    Parameters:
        size: how many.
        seed: of everything random.
        initialized: begin as a cluster; otherwise all nodes are pristine.
        options: fields of `Config`.
    """

    def __init__(self, size: int, *, seed: int = 0, initialized: bool = True, **options: Any) -> None:
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
        self.nodes = {f"n{number}": Node(self, f"n{number}") for number in range(1, size + 1)}
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
        self.sent.append((sender.name, message))
        boot = sender.boot
        settled: list[bool] = []

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
        return self.ask(name, lambda token: Initialize(token, tuple(self.nodes)))

    def write(self, name: str, data: Any) -> Outcome:
        return self.ask(name, lambda token: ClientWrite(token, data))

    def read(self, name: str) -> Outcome:
        return self.ask(name, ClientRead)

    def elect(self, name: str) -> None:
        self.nodes[name].take(Elect())

    def leader(self) -> str | None:
        """The leader of the latest term, if any node leads."""
        leading = [
            node.core for node in self.nodes.values() if node.core is not None and node.core.state is State.LEADER
        ]
        return max(leading, key=lambda core: core.term).id if leading else None

    def settled(self) -> str | None:
        """The leader, once everyone who is up follows it."""
        leader = self.leader()
        up = [node.core for node in self.nodes.values() if node.core is not None]
        return leader if leader and all(core.leader_id == leader for core in up) else None

    def restart(self, name: str) -> None:
        self.nodes[name].crash()
        self.nodes[name].start()
