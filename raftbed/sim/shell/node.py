"""A node's process on a simulated machine: all of `python -m raftbed.nodes`, on a loop of its own in virtual time."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from raftbed.nodes.__main__ import NodeSettings, run
from raftbed.nodes.identity import Identity
from raftbed.nodes.raft import Config, Raft, RaftMetrics, State, Trace
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Event
from raftbed.nodes.storage import DiskLogStore, DiskSnapshots, NodeStorage, StateMachine
from raftbed.nodes.surroundings import Surroundings
from raftbed.sim.clock import NodeClock
from raftbed.sim.disk import SimulatedDisk
from raftbed.sim.replies import Watcher
from raftbed.sim.shell.clients import Clients
from raftbed.sim.shell.loop import VirtualLoop
from raftbed.sim.shell.streams import Streams
from raftbed.sim.shell.worker import SimulatedWorker
from raftbed.sim.timeline import Timeline

PORT = 8400


class SimulatedSurroundings(Surroundings):
    """What one process takes from its machine.

    Parameters:
        node: whose process.
        boot: its number.
    """

    def __init__(self, node: ShellNode, boot: int) -> None:
        self._node = node
        self._boot = boot
        self.clock = lambda: node.clock.read(node.timeline.now)
        self.core = node.make_core

    def random(self) -> Random:
        """See `Surroundings`."""
        return Random(f"{self._node.seed}:core:{self._node.name}:{self._boot}")

    def worker(self, loop: asyncio.AbstractEventLoop, name: str) -> SimulatedWorker:
        """See `Surroundings`."""
        assert isinstance(loop, VirtualLoop)
        random = Random(f"{self._node.seed}:{name}:{self._boot}")
        worker = SimulatedWorker(self._node, loop, random, is_log=name.startswith("raft-storage"))
        self._node.workers.append(worker)
        return worker

    def claim(self, data: Path, identity: Identity) -> None:
        """See `Surroundings`: a simulated disk is its node's."""

    def storage(self, data: Path, machine: StateMachine) -> NodeStorage:
        """See `Surroundings`."""
        log = DiskLogStore(self._node.disk, segment_size=self._node.segment_size)
        return NodeStorage(log, machine, DiskSnapshots(self._node.snapshot_disk), shares_commands=True)

    def trace(self, path: Path, node: str) -> _Trace:
        """See `Surroundings`."""
        return _Trace(lambda traces: self._node.observer.traced(self._node, traces))

    def listens(self, raft: Raft) -> None:
        """See `Surroundings`."""
        self._node.raft = raft


class _Trace:
    """Hands the trace on; implements :class:`raftbed.nodes.surroundings.TraceSink`."""

    def __init__(self, take: Callable[[Sequence[Trace]], None]) -> None:
        self._take = take

    def __call__(self, traces: Sequence[Trace]) -> None:
        self._take(traces)

    def close(self, *, whole: bool = True) -> None:
        """See `TraceSink`."""


class ShellNode:
    """One node on its machine; implements :class:`raftbed.sim.replies.Node` and `raftbed.sim.shell.worker.Process`.

    Parameters:
        name: its id.
        cluster: the cluster's name.
        peers: all nodes' ids to their addresses.
        config: of its Raft, as options.
        timeline: virtual time.
        network: between the machines.
        seed: of everything random here.
        segment_size: of its log store, in bytes.
        observer: is told what it goes through.
        failed: takes what asyncio would log of a process.

    Attributes:
        running: there is a process.
        paused: the process stands still.
        stopping: it was told to stop.
        boot: number of the latest start.
        slow_disk: owner to how many times as long a sync takes.
        raft: the present process's, once it takes requests.
        workers: the present process's storage threads.
        failed_by_disk: the disk of the present process failed because a fault has it so.
        last_words: what the present process logged last, as an error.
        clients: the machine that clients and operators are on.
        make_core: makes the core of a process.
    """

    def __init__(
        self,
        name: str,
        *,
        cluster: str,
        peers: Mapping[str, str],
        options: Mapping[str, Any],
        timeline: Timeline,
        network: Streams,
        seed: int,
        segment_size: int,
        observer: Watcher,
        failed: Callable[[ShellNode, dict[str, Any]], None],
        clients: Clients,
    ) -> None:
        self.name = name
        self.config = Config.from_mapping(cluster, dict(options))
        self.timeline = timeline
        self.network = network
        self.observer = observer
        self.seed = seed
        self.segment_size = segment_size
        self.disk = SimulatedDisk(Random(f"{seed}:disk:{name}"))
        self.snapshot_disk = SimulatedDisk(Random(f"{seed}:snapshots:{name}"))  # another directory of the same disk
        self.slow_disk: dict[str, float] = {}
        self.running = self.paused = self.stopping = False
        self.boot = 0
        clocks = Random(f"{seed}:clock:{name}")
        self.clock = NodeClock(offset=clocks.randrange(10**12), ppm=clocks.randint(-100, 100))
        self.raft: Raft | None = None
        self.workers: list[SimulatedWorker] = []
        self.failed_by_disk = False
        self.last_words = ""
        self.make_core: Callable[..., Core] = Core
        self._settings = NodeSettings(
            id=name,
            cluster=cluster,
            listen=peers[name],
            peers=dict(peers),
            data="/data",
            trace="/trace.jsonl",
            raft=dict(options),
        )
        self._failed = failed
        self.clients = clients
        self._powered = True
        self._start_again = False
        self._loop: VirtualLoop | None = None
        self._past: list[VirtualLoop] = []  # held on to: what a killed process left must not come to its end

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process, if there is none; one that is coming to its end by itself is followed by another."""
        if not self._powered:
            return
        if self.running:
            self._start_again = self.stopping or (self.raft is not None and self.raft.closing)
            return
        self.boot += 1
        self.running, self.paused, self.stopping = True, False, False
        self.failed_by_disk = self._start_again = False
        self.raft, self.workers, self.last_words = None, [], ""
        random = Random(f"{self.seed}:loop:{self.name}:{self.boot}")
        loop = VirtualLoop(
            self.timeline, self.name, self.clock, random,
            network=self.network, failed=lambda context: self._failed(self, context),
        )  # fmt: skip
        self._loop = loop
        settings = msgspec.structs.replace(self._settings, peers=dict(self._settings.peers))  # the process adds to them
        task = loop.create_task(run(settings, SimulatedSurroundings(self, self.boot)))
        task.add_done_callback(self._ended)

    def dispose(self) -> None:
        """The run is over: let go of everything."""
        for loop in (*self._past, *([self._loop] if self._loop is not None else [])):
            loop.dispose()
        self._past.clear()
        self._loop = self.raft = None

    def kill(self) -> None:
        """SIGKILL: the process is gone; what it had written stays, and whoever it talked to sees the connection end."""
        if self.running:
            self.disk.kill(writing=self.writing)
            self._gone()
            self.network.process_gone(self.name)

    def fail_power(self) -> Mapping[str, int]:
        """The machine is gone, silently; returns what was lost of its files, in bytes."""
        self._gone()
        self.powered = False
        return {**self.disk.fail_power(), **self.snapshot_disk.fail_power()}

    def pause(self) -> None:
        """SIGSTOP."""
        if self.running and self._loop is not None:
            self.paused = True
            self._loop.pause()
            for worker in self.workers:
                worker.pause()

    def resume(self) -> None:
        """SIGCONT: what came in meanwhile is taken now."""
        if self.paused and self._loop is not None:
            self.paused = False
            self._loop.resume()
            for worker in self.workers:
                worker.resume()

    def stop(self) -> None:
        """SIGTERM."""
        if self.running and self._loop is not None:
            if self._loop.raise_signal(signal.SIGTERM):
                self.stopping = True
            else:
                self.kill()  # which is what the signal does to a process that has just begun

    def set_disk(self, *, full: bool, broken: bool) -> None:
        """The disk is full, or broken, or well again."""
        for disk in (self.disk, self.snapshot_disk):
            disk.full, disk.broken = full, broken

    def clock_changed(self) -> None:
        """The clock was set or its speed changed: timers are set anew."""
        if self._loop is not None:
            self._loop.clock_changed()

    def metrics(self) -> RaftMetrics | None:
        """What the node says of itself; None when nobody answers."""
        if self.raft is None or self.paused or self.stopping or self.raft.closing:
            return None
        metrics = self.raft.metrics().current
        return None if metrics.state is State.SHUTDOWN else metrics

    def take(self, event: Event) -> None:
        """An operator asks, over HTTP."""
        self.clients.ask(self, event)

    def take_if_alive(self, event: Event) -> None:
        """The same."""
        if self.running:
            self.clients.ask(self, event)

    @property
    def powered(self) -> bool:
        """The machine runs."""
        return self._powered

    @powered.setter
    def powered(self, on: bool) -> None:
        self._powered = on
        self.network.power(self.name, on)

    @property
    def writing(self) -> bool:
        """A call of the storage is under way."""
        return any(worker.busy for worker in self.workers)

    def _gone(self) -> None:
        self.running = self.paused = self._start_again = False
        self.raft, self.workers = None, []
        if self._loop is not None:
            self._loop.retire()
            self._past.append(self._loop)
            self._loop = None

    def _ended(self, task: asyncio.Task[int]) -> None:
        """The process has come to its end by itself, or because it was told to."""
        again = self._start_again
        error = None if task.cancelled() else task.exception()
        self.disk.under_way.clear()
        self.network.process_gone(self.name)
        self._gone()
        if task.cancelled() or error is not None or task.result():
            self.observer.ended(self, f"{error!r}" if error is not None else self.last_words or "it says nothing")
        if again:
            self.start()

    # -- Process ------------------------------------------------------------------------------------------------------

    def begins_write(self) -> None:
        """See `Process`."""
        self.disk.mark()

    def ends_write(self, *, failed: bool, synced: bool) -> None:
        """See `Process`."""
        self.ends_snapshot_work(failed=failed)
        if failed:
            self.disk.under_way.clear()
            return
        self.disk.commit()
        if synced and self.disk.unsynced:
            self.observer.unsynced(self, self.disk.unsynced)

    def ends_snapshot_work(self, *, failed: bool) -> None:
        """See `Process`."""
        if failed:
            self.failed_by_disk |= self.disk.full or self.disk.broken
        else:
            self.snapshot_disk.commit()

    def syncs(self) -> int:
        """See `Process`."""
        return self.disk.syncs

    def slowness(self) -> float | None:
        """See `Process`."""
        return max(self.slow_disk.values(), default=None)
