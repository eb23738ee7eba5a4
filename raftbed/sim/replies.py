"""Who waits for a simulated node, and who watches it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from raftbed.nodes.raft import Trace
from raftbed.nodes.raft.events import Send

if TYPE_CHECKING:
    from raftbed.sim.node import SimulatedNode


class Waiting(Protocol):
    """Who waits for an answer of a node; the token that the core hands back."""

    def answer(self, node: SimulatedNode, value: Any) -> None:
        """Take the answer: a value, or an exception."""
        ...

    def reset(self, node: SimulatedNode) -> None:
        """The process that was asked is gone, and its connections with it."""
        ...


class Observer(Protocol):
    """Who is told what nodes go through."""

    def traced(self, node: SimulatedNode, traces: Sequence[Trace]) -> None:
        """A round was traced; nothing of it has left yet."""
        ...

    def sent(self, node: SimulatedNode, message: Send) -> None:
        """A request to a peer leaves."""
        ...

    def arrived(self, node: SimulatedNode, message: Send) -> None:
        """A request reached the machine of its receiver, or its answer that of the sender."""
        ...

    def answered(self, node: SimulatedNode, message: Send, sender: SimulatedNode, response: Any) -> None:
        """A node's answer to a peer's request leaves; None: a reset."""
        ...

    def unsynced(self, node: SimulatedNode, count: int) -> None:
        """The storage says that a write is durable, and `count` bytes of it are not."""
        ...

    def ended(self, node: SimulatedNode, reason: str) -> None:
        """The process came to an end by itself."""
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
