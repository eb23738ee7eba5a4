"""The simulated network: one link for each direction between two nodes, each with its own luck and its own troubles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from raftbed.sim.timeline import Timeline

_LEAST_DELAY = 100_000  # nanoseconds: a switch or two
_SPREAD = 400_000
_RARE = 0.002  # share of messages that a scheduler or a buffer holds up
_RARE_SPREAD = 20_000_000


class Link:
    """One direction between two nodes. Faults have owners: what one of them does ends when that one is healed.

    Attributes:
        cut: owners of cuts: everything is lost.
        clogged: owners of clogs: everything is held, and comes in a burst afterwards.
        loss: owner to the share of messages that are lost.
        duplication: owner to the share of messages that come twice.
        delay: owner to (least, most) nanoseconds that are added, and the share of messages to which they are.
    """

    __slots__ = ("_held", "clogged", "cut", "delay", "duplication", "loss", "met", "random", "troubled")

    def __init__(self, random: Random) -> None:
        self.random = random
        self.cut: dict[str, None] = {}
        self.clogged: dict[str, None] = {}
        self.loss: dict[str, float] = {}
        self.duplication: dict[str, float] = {}
        self.delay: dict[str, tuple[int, int, float]] = {}
        self.troubled = False
        self.met: dict[str, int] = {}  # owner to how many messages met it
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def changed(self) -> None:
        """After a change of owners: is there any trouble at all?"""
        self.troubled = bool(self.cut or self.clogged or self.loss or self.duplication or self.delay)

    def let_go(self, timeline: Timeline) -> None:
        """Deliver what was held, if nothing holds it any more."""
        if self.clogged:
            return
        held, self._held = self._held, []
        for action, arguments in held:
            timeline.after_with(self.time(), action, arguments)

    def carry(self, timeline: Timeline, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Bring a message to its end, or not, as the link's troubles have it."""
        draw = self.random.random
        for owner in self.cut:
            self.meet(owner)
        for owner, share in self.loss.items():
            if draw() < share:
                self.meet(owner)
                return
        if self.cut:
            return
        if self.clogged:
            for owner in self.clogged:
                self.meet(owner)
            self._held.append((action, arguments))
            return
        copies = 1
        for owner, share in self.duplication.items():
            if draw() < share:
                self.meet(owner)
                copies += 1
        for _ in range(copies):
            time = self.time()
            for owner, (least, most, share) in self.delay.items():
                if share < 1 and draw() >= share:
                    continue
                self.meet(owner)
                time += least + int(draw() * (most - least))
            timeline.after_with(time, action, arguments)

    def time(self) -> int:
        """Nanoseconds that a message takes without troubles."""
        draw = self.random.random
        time = _LEAST_DELAY + int(draw() * _SPREAD)
        if draw() < _RARE:
            time += int(draw() * _RARE_SPREAD)
        return time

    def meet(self, owner: str) -> None:
        """A message met what this owner does."""
        self.met[owner] = self.met.get(owner, 0) + 1


class Network:
    """All links between `nodes`.

    Parameters:
        timeline: when things arrive.
        nodes: their names.
        seed: of everything random here.

    Attributes:
        carried: messages so far.
    """

    def __init__(self, timeline: Timeline, nodes: Sequence[str], seed: int) -> None:
        self._timeline = timeline
        self._links: Mapping[str, Mapping[str, Link]] = {
            source: {target: Link(Random(f"{seed}:link:{source}:{target}")) for target in nodes} for source in nodes
        }
        self.carried = 0

    def send(self, source: str, target: str, action: Callable[..., None], *arguments: Any) -> None:
        """Have `action` called when a message from `source` arrives at `target`, if it does."""
        self.carried += 1
        link = self._links[source][target]
        if link.troubled:
            link.carry(self._timeline, action, arguments)
        else:
            self._timeline.after_with(link.time(), action, arguments)

    def link(self, source: str, target: str) -> Link:
        """One direction; a node that it does not know is reached over no link.

        Raises:
            KeyError: there is no such link.
        """
        return self._links[source][target]

    def links_of(self, nodes: Sequence[str]) -> list[Link]:
        """Every link from or to one of `nodes`, each once, in a fixed order."""
        return [
            link
            for source, targets in self._links.items()
            for target, link in targets.items()
            if source != target and (source in nodes or target in nodes)
        ]
