"""What operators do to a simulated cluster while faults strike: change its membership, move its leadership.

An operator asks whoever leads, and asks again until it is done: what was lost half way must not stay half done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raftbed.nodes.raft import State
from raftbed.nodes.raft.errors import Noop
from raftbed.nodes.raft.events import ChangeMembership, Event, TransferLeadership
from raftbed.sim.replies import Node
from raftbed.sim.timeline import Resume, Suspend, Task, Timeline

_PATIENCE = 1_000_000_000  # nanoseconds for one answer
_PAUSE = 0.1  # seconds between two attempts


class Ask:
    """Waits for an answer, but not for ever; implements `raftbed.sim.replies.Waiting`."""

    __slots__ = ("_resume",)

    def __init__(self, resume: Resume) -> None:
        self._resume: Resume | None = resume

    def end(self, value: Any) -> None:
        """There is an answer, or there will be none (an exception)."""
        resume, self._resume = self._resume, None
        if resume is not None:
            resume(value)

    def answer(self, node: Node, value: Any) -> None:
        """See `Waiting`. Goes on a moment later: the node is in the middle of something."""
        node.timeline.after(0, self.end, value)

    def reset(self, node: Node) -> None:
        """See `Waiting`."""
        node.timeline.after(0, self.end, ConnectionResetError())


class Operators:
    """Brings the membership to what is wanted, and moves leaderships.

    Parameters:
        timeline: virtual time.
        nodes: all of them; without a fault all are members.

    Attributes:
        gone: nodes that are not to come back.
        changes: of the membership that were done.
        transfers: of the leadership that were done.
    """

    def __init__(self, timeline: Timeline, nodes: Mapping[str, Node]) -> None:
        self._timeline = timeline
        self._nodes = nodes
        self._removed: dict[str, dict[str, None]] = {name: {} for name in nodes}  # node to the steps that want it out
        self._is_so: tuple[str, ...] | None = tuple(nodes)  # None: a change may have been made, or not
        self._at_work = False
        self.gone: dict[str, None] = {}
        self.changes = 0
        self.transfers = 0

    def remove(self, names: list[str], owner: str) -> None:
        """Let these nodes be no members as long as `owner` wants it; of all nodes, one stays."""
        for name in names:
            self._removed[name][owner] = None
        self._see_to_it()

    def bring_back(self, owner: str, *, stay_out: bool = False) -> None:
        """`owner` wants nothing any more; those that `stay_out` remain removed all the same."""
        for name, owners in self._removed.items():
            if stay_out and owner in owners:
                self.gone[name] = None
            owners.pop(owner, None)
        self._see_to_it()

    def transfer(self, target: str) -> None:
        """Ask the leader, once, to let `target` lead."""
        Task(self._transfer(target))

    @property
    def is_done(self) -> bool:
        """The membership is what is wanted."""
        return not self._at_work

    def look(self, members: tuple[str, ...]) -> None:
        """Whoever leads has these members: go to work again, if that is not what is wanted."""
        if not self._at_work and members != tuple(sorted(self.wanted())):
            self._is_so = None
            self._see_to_it()

    def wanted(self) -> tuple[str, ...]:
        """The members that there are to be."""
        members = tuple(name for name, owners in self._removed.items() if not owners and name not in self.gone)
        return members or tuple(self._nodes)[:1]

    def _see_to_it(self) -> None:
        if not self._at_work:
            self._at_work = True
            Task(self._work())

    async def _work(self) -> None:
        while (members := self.wanted()) != self._is_so:
            told = await self._ask(lambda token, members=members: ChangeMembership(token, members))  # type: ignore[misc]
            if isinstance(told, Noop):
                self._is_so = members
            elif isinstance(told, Exception):
                self._is_so = None  # what was not acknowledged may happen yet
                await self._timeline.sleep(_PAUSE)
            else:
                self._is_so = members
                self.changes += 1
        self._at_work = False

    async def _transfer(self, target: str) -> None:
        told = await self._ask(lambda token: TransferLeadership(token, target))
        self.transfers += not isinstance(told, Exception)

    async def _ask(self, make: Callable[[Ask], Event]) -> Any:
        """What the leader answers: a value or an exception; so too when nobody leads or answers."""
        leading = [
            (metrics.current_term, name)
            for name, node in self._nodes.items()
            if (metrics := node.metrics()) is not None and metrics.state is State.LEADER
        ]
        if not leading:
            return LookupError("nobody leads")

        def begin(resume: Resume) -> None:
            ask = Ask(resume)
            self._timeline.after(_PATIENCE, ask.end, TimeoutError())
            self._timeline.after(0, self._nodes[max(leading)[1]].take_if_alive, make(ask))

        return await Suspend(begin)
