"""A simulated node: the real core, log store and state machine, driven as `raftbed.nodes.raft.api` drives them.

Theory of operation
-------------------
Events gather in an inbox. A round steps the core through all of them, lets it look at the clock, and does what `ready`
says: early messages leave, and `persist` goes to the disk. While the disk works, heartbeats go on, both ways, and a
leader's rounds, as far as they need no disk. When it is done the core is told (`Durable`), and only then do the effects
of that `Ready` leave that depend on it. Whatever the storage or the core raises ends the process.

A process can be killed (its connections are reset), paused (it does nothing, and all that comes in waits), or lose its
power (nobody hears of it any more). Each start is a boot; what belonged to an earlier one finds that out by its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from raftbed.nodes.raft import Config, RaftMetrics
from raftbed.nodes.raft.config import MILLISECOND
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.errors import LeadershipLost, RaftStorageError, ShuttingDown
from raftbed.nodes.raft.events import (
    AbortSnapshot,
    Answered,
    Apply,
    Durable,
    Event,
    Failed,
    Ready,
    Received,
    Respond,
    Restore,
    Send,
    StoreChunk,
    TakeSnapshot,
)
from raftbed.nodes.raft.messages import Request
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.storage import DiskLogStore, DiskSnapshots, NodeStorage
from raftbed.sim.calls import Calls
from raftbed.sim.clock import NodeClock
from raftbed.sim.disk import SimulatedDisk, sync_time
from raftbed.sim.network import Network
from raftbed.sim.replies import Observer, Reply
from raftbed.sim.snapshots import SnapshotWork
from raftbed.sim.timeline import Timeline

_NEVER = 1 << 62
_ENDLESS = 10_000  # things to do in one moment


class SimulatedNode:
    """One node on its machine. `start` begins a process on whatever its disk holds.

    Parameters:
        name: its id.
        nodes: all nodes by name, itself included; may be filled later.
        config: of its Raft.
        timeline: virtual time.
        network: between the nodes.
        seed: of everything random here.
        segment_size: of its log store, in bytes.
        observer: is told what it goes through.

    Attributes:
        running: there is a process.
        powered: the machine runs: what comes in for a process that is gone is refused, else nobody answers.
        paused: the process stands still.
        boot: number of the latest start.
        slow_disk: owner to how many times as long a sync takes.
        machine: the state machine of the present process.
        make_core: makes the core of a process.
    """

    def __init__(
        self,
        name: str,
        nodes: Mapping[str, SimulatedNode],
        config: Config,
        timeline: Timeline,
        network: Network,
        *,
        seed: int,
        segment_size: int,
        observer: Observer,
    ) -> None:
        self.name = name
        self.nodes = nodes
        self.config = config
        self.timeline = timeline
        self.network = network
        self.observer = observer
        self.disk = SimulatedDisk(Random(f"{seed}:disk:{name}"))
        self.snapshot_disk = SimulatedDisk(Random(f"{seed}:snapshots:{name}"))  # another directory of the same disk
        self.slow_disk: dict[str, float] = {}
        self.running = self.paused = False
        self.powered = True
        self.boot = 0
        self.machine = KeyValueStateMachine()
        self.make_core: Callable[..., Core] = Core
        self._seed = seed
        self._segment_size = segment_size
        self._syncs = Random(f"{seed}:sync:{name}")
        clocks = Random(f"{seed}:clock:{name}")
        self.clock = NodeClock(offset=clocks.randrange(10**12), ppm=clocks.randint(-100, 100))
        self._patience = config.election_timeout_min * MILLISECOND
        self._storage: NodeStorage | None = None
        self._core: Core | None = None
        self._inbox: list[Event] = []
        self._writing: Ready | None = None
        self._written_while_paused = False
        self._calls = Calls()
        self._snapshots: SnapshotWork | None = None
        self._applied = 0  # the last entry that the state machine has seen; the core is ahead while the disk works
        self._open: dict[Any, None] = {}  # who waits for an answer of this process
        self._wake_at = self._wake_for = _NEVER  # when the timer fires, and for what time of the own clock
        self._do: Mapping[type, Callable[[Any], None]] = {
            Send: self._send,
            Apply: self._apply,
            TakeSnapshot: lambda effect: self._snapshot_work.take(effect),
            AbortSnapshot: lambda effect: self._snapshot_work.abort(effect),
            StoreChunk: lambda effect: self._snapshot_work.store(effect),
            Restore: self._restore,
        }

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process, if there is none."""
        if self.running or not self.powered:
            return
        self.boot += 1
        self.running, self.paused = True, False
        self._inbox, self._calls, self._open, self._writing = [], Calls(), {}, None
        self._wake_at = self._wake_for = _NEVER
        self.machine = KeyValueStateMachine()
        log = DiskLogStore(self.disk, segment_size=self._segment_size)
        self._storage = NodeStorage(log, self.machine, DiskSnapshots(self.snapshot_disk), shares_commands=True)
        random = Random(f"{self._seed}:snapshot-work:{self.name}:{self.boot}")
        self._snapshots = SnapshotWork(self, self._storage, self.snapshot_disk, self.config, self.timeline, random)
        try:
            stored = self._storage.get_initial_state()
            self.disk.commit()
            self.snapshot_disk.commit()
            random = Random(f"{self._seed}:core:{self.name}:{self.boot}")
            self._core = core = self.make_core(
                self.name, self.config, random, hard_state=stored.hard_state, entries=stored.entries,
                now=self.clock.read(self.timeline.now), base=stored.base, snapshot=stored.snapshot,
            )  # fmt: skip
            self._applied = core.last_applied
            core.start()
            self._work(core)
        except Exception as error:  # as in a live node: whatever it is, it cannot go on; the observer is told
            self._end(error)

    def kill(self) -> None:
        """SIGKILL: the process is gone; what it had written stays, and its peers and clients see resets."""
        if not self.running:
            return
        self.disk.kill(writing=self._writing is not None)
        for token in self._gone():
            token.reset(self)

    def fail_power(self) -> Mapping[str, int]:
        """The machine is gone, silently; returns what was lost of its files, in bytes."""
        self._gone()
        self.powered = False
        return {**self.disk.fail_power(), **self.snapshot_disk.fail_power()}

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = self.running

    def resume(self) -> None:
        """SIGCONT: what came in meanwhile is taken now."""
        if not self.paused:
            return
        self.paused = False
        self._wake_at = self._wake_for = _NEVER
        if self._written_while_paused:
            self._written_while_paused = False
            self._written(self.boot)
        else:
            self._round()
            if self._writing is not None and self._core is not None:
                self._set_timer(self._core)

    def set_disk(self, *, full: bool, broken: bool) -> None:
        """The disk is full, or broken, or well again."""
        for disk in (self.disk, self.snapshot_disk):
            disk.full, disk.broken = full, broken

    def clock_changed(self) -> None:
        """The clock was set or its speed changed: timers are set anew."""
        self._wake_at = self._wake_for = _NEVER
        if self._core is not None and not self.paused:
            self._set_timer(self._core)

    def metrics(self) -> RaftMetrics | None:
        """What the node says of itself; None when nobody answers."""
        return self._core.metrics(self._applied) if self._core is not None and not self.paused else None

    @property
    def writing(self) -> bool:
        """A write is under way."""
        return self._writing is not None

    def _gone(self) -> list[Any]:
        waiting = list(self._open)
        self.running = self.paused = self._written_while_paused = False
        if self._snapshots is not None:
            self._snapshots.end()
        self._core = self._storage = self._snapshots = self._writing = None
        self._inbox, self._calls, self._open = [], Calls(), {}
        self._wake_at = self._wake_for = _NEVER
        return waiting

    def _end(self, error: Exception) -> None:
        """The process ends by itself: who waits is told, as `raftbed.nodes.raft.api` does it."""
        core = self._core
        if core is not None and core.leadership is not None:
            for token in list(core.leadership.writes.values()):
                self._settle(token, LeadershipLost("the leader shut down before the write was committed"))
        for token in list(self._open):
            self._settle(token, ShuttingDown())
        self.disk.under_way.clear()
        self._gone()
        self.observer.ended(self, f"{type(error).__name__}: {error}")

    # -- rounds ---------------------------------------------------------------------------------------------------

    def take(self, event: Event) -> None:
        """Something came in, of which the node's process is to hear. There must be one."""
        token = getattr(event, "token", None)
        if token is not None:
            self._open[token] = None
        self.push(event)

    def take_if_alive(self, event: Event) -> None:
        """The same, of what nobody hears where there is no process."""
        if self._core is not None:
            self.take(event)

    def push(self, event: Event) -> None:
        """See `raftbed.sim.snapshots.Process`."""
        core = self._core
        if self._writing is not None and core is not None and not self.paused and isinstance(event, Received):
            answer = core.hear(event, self.clock.read(self.timeline.now))
            if answer is not None:
                self._settle(event.token, answer)
                return
        self._inbox.append(event)
        if not self.paused and (self._writing is None or (core is not None and core.goes_on_while_writing)):
            self._round()

    def _round(self) -> None:
        core = self._core
        if core is None or self.paused or (self._writing is not None and not core.goes_on_while_writing):
            return
        try:
            now = self.clock.read(self.timeline.now)
            inbox, self._inbox = [*self._inbox, *map(Failed, self._calls.give_up(now))], []
            if self._writing is not None:
                self._round_while_writing(core, inbox, now)
                return
            for event in inbox:
                core.step(event, now)
            core.tick(now)
            self._work(core)
        except Exception as error:  # as in `start`
            self._end(error)

    def _round_while_writing(self, core: Core, inbox: Sequence[Event], now: int) -> None:
        self._inbox = core.step_while_writing(inbox, now)
        ready = core.ready_while_writing()
        if ready is not None:
            self._begin(ready)
            self._finish(ready)

    def _begin(self, ready: Ready) -> None:
        if ready.traces:
            self.observer.traced(self, ready.traces)
        for message in ready.early:
            self._send(message)

    def _work(self, core: Core) -> None:
        for _ in range(_ENDLESS):
            ready = core.ready()
            if ready is None:
                break
            self._begin(ready)
            if ready.persist is not None:
                self._persist(ready)
            if ready.independent:
                self._finish(ready)
            if ready.persist is not None:
                break
        else:
            raise RuntimeError("the core has no end of things to do")
        self._set_timer(core)

    def _persist(self, ready: Ready) -> None:
        storage, persist, self._writing = self._storage, ready.persist, ready
        assert storage is not None and persist is not None
        self.disk.mark()
        try:
            storage.persist(
                persist.hard_state, persist.truncate_from, persist.entries,
                compact_to=persist.compact_to, install=persist.install,
            )  # fmt: skip
        except Exception as error:
            raise RaftStorageError(str(error)) from error
        factor = max(self.slow_disk.values(), default=None)
        self.timeline.after(sync_time(self._syncs, factor), self._written, self.boot)

    def _written(self, boot: int) -> None:
        core, ready = self._core, self._writing
        if boot != self.boot or core is None or ready is None:
            return
        if self.paused:
            self._written_while_paused = True
            return
        self.disk.commit()
        self._snapshot_work.persisted(ready.persist)
        self._writing = None
        if self.disk.unsynced:
            self.observer.unsynced(self, self.disk.unsynced)
        try:
            core.step(Durable(), self.clock.read(self.timeline.now))
            if not ready.independent:
                self._finish(ready)
        except Exception as error:  # as in `start`
            self._end(error)
        self._round()  # what waited for the disk comes before the next write, else a busy leader would never hear of it

    def _finish(self, ready: Ready) -> None:
        for effect in ready.effects:
            if type(effect) is Respond:  # most are
                self._settle(effect.token, effect.value)
            else:
                self._do[type(effect)](effect)

    def _set_timer(self, core: Core) -> None:
        writing = self._writing is not None
        deadline = core.deadline_while_writing if writing else core.deadline
        until = None if writing else self._calls.deadline
        if until is not None:
            deadline = until if deadline is None or until < deadline else deadline
        if deadline is None or deadline >= self._wake_for:
            return
        time = max(self.clock.when(deadline), self.timeline.now)
        if time < self._wake_at:
            self._wake_at, self._wake_for = time, deadline
            self.timeline.at(time, self._wake, self.boot, time)

    def _wake(self, boot: int, time: int) -> None:
        if boot != self.boot or time != self._wake_at:
            return  # a timer that was set anew meanwhile
        self._wake_at = self._wake_for = _NEVER
        core = self._core
        if core is None or self.paused:
            return
        now = self.clock.read(self.timeline.now)
        if self._writing is not None:
            for message in core.beat(now):
                self._send(message)
            self._set_timer(core)  # where none is due before the disk is done, the round after it sets the timer
            return
        if any(deadline is not None and deadline <= now for deadline in (core.deadline, self._calls.deadline)):
            self._round()
        else:
            self._set_timer(core)

    # -- effects --------------------------------------------------------------------------------------------------

    def _send(self, message: Send) -> None:
        if message.method == "install_snapshot":
            self._calls.begin_piece(message)
            self._snapshot_work.send(message)
            return
        self._calls.begin(message, self.clock.read(self.timeline.now) + self._patience)
        self.carry(message, message.request)

    def carry(self, message: Send, request: Request) -> None:
        """Bring a message to its peer; `request` is what it says."""
        self.observer.sent(self, message)
        target = self.nodes[message.to]
        self.network.send(self.name, message.to, target.arrived, self, message, request, self.boot)

    def gave_up(self, message: Send) -> None:
        """A piece of a snapshot had no answer for too long, or could not be read."""
        if self._calls.give_up_piece(message):
            self.push(Failed(message))

    def fail(self, error: Exception) -> None:
        """See `raftbed.sim.snapshots.Process`."""
        self._end(error)

    def arrived(self, sender: SimulatedNode, message: Send, request: Request, boot: int) -> None:
        """A peer's request reaches the machine."""
        reply = Reply(sender, message, boot)
        self.observer.arrived(self, message)
        if self._core is not None:
            self.take(Received(reply, message.method, request))
        elif self.powered:
            reply.reset(self)

    def came_back(self, boot: int, message: Send, response: Any) -> None:
        """The answer to a request reaches the machine; None: the connection was reset."""
        if boot != self.boot or self._core is None or not self._calls.is_heard(message, response):
            return
        self.observer.arrived(self, message)
        self.push(Failed(message) if response is None else Answered(message, response))

    def _apply(self, effect: Apply) -> None:
        assert self._storage is not None
        try:
            answers = self._storage.apply_to_state_machine(effect.entries)
        except Exception as error:
            raise RaftStorageError(f"the state machine failed: {type(error).__name__}: {error}") from error
        self._applied = effect.entries[-1].index
        if effect.tokens:
            for entry, answer in zip(effect.entries, answers, strict=True):
                token = effect.tokens.get(entry.index)
                if token is not None:
                    self._settle(token, answer)

    def _restore(self, effect: Restore) -> None:
        self._snapshot_work.restore(effect)
        self._applied = effect.snapshot.index

    @property
    def _snapshot_work(self) -> SnapshotWork:
        assert self._snapshots is not None
        return self._snapshots

    def _settle(self, token: Any, value: Any) -> None:
        if self._open.pop(token, token) is None:
            token.answer(self, value)
