"""Who waits for a simulated node, and who watches it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from raftbed.nodes.raft import Config, RaftMetrics, Trace
from raftbed.nodes.raft.events import Event, Send
from raftbed.sim.clock import NodeClock
from raftbed.sim.disk import SimulatedDisk
from raftbed.sim.timeline import Timeline

if TYPE_CHECKING:
    from raftbed.sim.node import SimulatedNode


class Node(Protocol):
    """A node on its simulated machine, as faults, operators and the phases of a run see it.

    Attributes:
        name: its id.
        timeline: virtual time.
        config: of its Raft.
        clock: of the machine.
        disk: of the machine.
        slow_disk: owner to how many times as long a sync takes.
        running: there is a process.
        paused: the process stands still.
        boot: number of the latest start.
        powered: the machine runs.
    """

    name: str
    timeline: Timeline
    config: Config
    clock: NodeClock
    disk: SimulatedDisk
    slow_disk: dict[str, float]
    running: bool
    paused: bool
    boot: int

    @property
    def powered(self) -> bool:  # noqa: D102
        ...

    @powered.setter
    def powered(self, on: bool) -> None: ...

    def start(self) -> None:
        """Start a process, if there is none."""
        ...

    def kill(self) -> None:
        """SIGKILL."""
        ...

    def fail_power(self) -> Mapping[str, int]:
        """The machine is gone, silently; returns what was lost of its files, in bytes."""
        ...

    def pause(self) -> None:
        """SIGSTOP."""
        ...

    def resume(self) -> None:
        """SIGCONT."""
        ...

    def set_disk(self, *, full: bool, broken: bool) -> None:
        """The disk is full, or broken, or well again."""
        ...

    def clock_changed(self) -> None:
        """The clock was set or its speed changed."""
        ...

    def metrics(self) -> RaftMetrics | None:
        """What the node says of itself; None when nobody answers."""
        ...

    def take(self, event: Event) -> None:
        """An operator asks something of the process, of which there must be one."""
        ...

    def take_if_alive(self, event: Event) -> None:
        """The same, of what nobody hears where there is no process."""
        ...


class Waiting(Protocol):
    """Who waits for an answer of a node; the token that the core hands back."""

    def answer(self, node: SimulatedNode, value: Any) -> None:
        """Take the answer: a value, or an exception."""
        ...

    def reset(self, node: SimulatedNode) -> None:
        """The process that was asked is gone, and its connections with it."""
        ...


class Watcher(Protocol):
    """Who is told what nodes go through."""

    def traced(self, node: Node, traces: Sequence[Trace]) -> None:
        """A round was traced; nothing of it has left yet."""
        ...

    def unsynced(self, node: Node, count: int) -> None:
        """The storage says that a write is durable, and `count` bytes of it are not."""
        ...

    def ended(self, node: Node, reason: str) -> None:
        """The process came to an end by itself."""
        ...


class Observer(Watcher, Protocol):
    """Who is told of their messages, too."""

    def sent(self, node: SimulatedNode, message: Send) -> None:
        """A request to a peer leaves."""
        ...

    def arrived(self, node: SimulatedNode, message: Send) -> None:
        """A request reached the machine of its receiver, or its answer that of the sender."""
        ...

    def answered(self, node: SimulatedNode, message: Send, sender: SimulatedNode, response: Any) -> None:
        """A node's answer to a peer's request leaves; None: a reset."""
        ...


class Reply:
    """Carries a peer's answer back; implements `Waiting`.

    Parameters:
        sender: who asked.
        message: what.
        boot: of the sender then.
    """

    __slots__ = ("boot", "message", "sender")

    def __init__(self, sender: SimulatedNode, message: Send, boot: int) -> None:
        self.sender = sender
        self.message = message
        self.boot = boot

    def answer(self, node: SimulatedNode, value: Any) -> None:
        """See `Waiting`."""
        response = None if isinstance(value, Exception) else value
        sender = self.sender
        node.observer.answered(node, self.message, sender, response)
        node.network.send(node.name, sender.name, sender.came_back, self.boot, self.message, response)

    def reset(self, node: SimulatedNode) -> None:
        """See `Waiting`."""
        sender = self.sender
        node.network.send(node.name, sender.name, sender.came_back, self.boot, self.message, None)
