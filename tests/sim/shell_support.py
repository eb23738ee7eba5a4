"""Builders for the tests of whole nodes in virtual time."""

from __future__ import annotations

from random import Random
from typing import Any

from sim_support import plan_of

from raftbed.model import Plan
from raftbed.sim.clock import NodeClock
from raftbed.sim.recording import Recording
from raftbed.sim.shell.loop import VirtualLoop
from raftbed.sim.shell.simulation import ShellSimulation
from raftbed.sim.shell.streams import Streams
from raftbed.sim.timeline import Timeline


def whole(test: str = "chaos-test", **settings: Any) -> Plan:
    """A plan for whole nodes."""
    return plan_of(test, hosts="simulated-real-nodes", **settings)


def run(test: str = "chaos-test", **settings: Any) -> Recording:
    """What such a run recorded."""
    return ShellSimulation(whole(test, **settings)).run()


class World:
    """Machines a and b, each with one process."""

    def __init__(self, seed: int = 1) -> None:
        self.timeline = Timeline()
        self.network = Streams(self.timeline, ("a", "b"), seed)
        self.complaints: list[dict[str, Any]] = []
        self.a, self.b = self.process("a"), self.process("b")

    def process(self, place: str, clock: NodeClock | None = None) -> VirtualLoop:
        return VirtualLoop(
            self.timeline,
            place,
            clock or NodeClock(),
            Random(f"loop {place}"),
            network=self.network,
            failed=self.complaints.append,
        )

    def cut(self, source: str, target: str, owner: str = "test") -> None:
        link = self.network.way(source, target)
        link.cut[owner] = None
        link.changed()

    def heal(self, source: str, target: str, owner: str = "test") -> None:
        link = self.network.way(source, target)
        link.cut.pop(owner)
        link.changed()

    def pass_time(self, seconds: float) -> None:
        until = self.timeline.now + int(seconds * 10**9)
        self.timeline.at(until, lambda: None)
        self.timeline.run(lambda: self.timeline.now >= until, limit=until)
