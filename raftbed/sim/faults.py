"""The faults of the simulator, and the nemesis that goes through a schedule of them.

Each kind is an entry of `KINDS`: how to inject it and how to heal it. A fault proves itself by looking at what it acted
on, as in a live run; here there is no command that could fail on the way. Every step has its own generator, so that
taking another step out of the schedule changes nothing in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from raftbed.faults.shapes import KILL_SHAPES, PARTITION_SHAPES, aims_at_leader
from raftbed.model import NEMESIS, SECOND, FaultEvent, FaultState, FaultStep, Op
from raftbed.nodes.raft import State, Trace
from raftbed.sim.machines import Machines
from raftbed.sim.moments import MOMENTS, Moment
from raftbed.sim.network import Link, Network
from raftbed.sim.operators import Operators
from raftbed.sim.replies import Node
from raftbed.sim.timeline import Timeline

_MILLISECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Strike:
    """One step as it is about to strike.

    Attributes:
        step: as planned.
        order: its nodes, the leader first where the shape aims at it.
        random: drawn from by this step alone.
    """

    step: FaultStep
    order: Sequence[str]
    random: Random

    @property
    def targets(self) -> list[str]:
        """The nodes that the shape picks."""
        return list(KILL_SHAPES[self.step.shape](self.order))


class Nemesis:
    """Executes schedules in virtual time.

    Parameters:
        timeline: virtual time; the ledger's times are its.
        nodes: by name.
        network: between them.
        seed: of everything random here.
        record_event: takes each line of the ledger.
        record_op: takes each nemesis operation of the history.
        kinds: of fault; None for those that every simulation has.
    """

    def __init__(
        self,
        timeline: Timeline,
        nodes: Mapping[str, Node],
        network: Network,
        *,
        seed: int,
        record_event: Callable[[FaultEvent], None],
        record_op: Callable[[Op], None],
        kinds: Mapping[str, Kind] | None = None,
    ) -> None:
        self.timeline = timeline
        self.nodes = nodes
        self.network = network
        self.machines = Machines(nodes)
        self.operators = Operators(timeline, nodes)
        self._seed = seed
        self._record_event = record_event
        self._record_op = record_op
        self._kinds = KINDS if kinds is None else kinds
        self._in_force: dict[str, Strike] = {}
        self._armed: dict[str, Moment] = {}
        self._led_last: str | None = None

    def schedule(self, steps: Sequence[FaultStep]) -> None:
        """Let each step strike and heal at its time, counted from now."""
        start = self.timeline.now
        for step in steps:
            self.timeline.at(start + int(step.at * SECOND), self._inject, step)
            self.timeline.at(start + int(step.until * SECOND), self._heal, step.id)

    def heal_all(self) -> None:
        """Heal everything in force."""
        for step_id in list(self._in_force):
            self._heal(step_id)

    def looks(self, node: Node, traces: Sequence[Trace]) -> None:
        """A node went through something: strike where a step waits for that."""
        if not self._armed:
            return
        for moment in list(self._armed.values()):
            if moment.comes(traces):
                self.timeline.after(moment.delay(), self._strike, moment, node.name)

    def _strike(self, moment: Moment, node: str) -> None:
        if moment.strike(self.machines, node) and moment.lasts is not None:
            self.timeline.after(moment.lasts, self._let_go, node, moment.owner)

    def _let_go(self, node: str, owner: str) -> None:
        self.machines.let_go(node, owner)

    # -- one step -------------------------------------------------------------------------------------------------

    def _inject(self, step: FaultStep) -> None:
        order, aim = self._order(step)
        strike = Strike(step, order, Random(f"{self._seed}:fault:{step.id}"))
        self._in_force[step.id] = strike
        nodes, detail = self._kinds[step.kind].inject(self, strike)
        self._note(step, "injected", tuple(nodes), {**aim, **detail})
        self._note(step, "proved", tuple(nodes), self._kinds[step.kind].prove(self, strike))

    def _heal(self, step_id: str) -> None:
        strike = self._in_force.pop(step_id, None)
        if strike is not None:
            self._note(strike.step, "healed", (), self._kinds[strike.step.kind].heal(self, strike))

    def _order(self, step: FaultStep) -> tuple[Sequence[str], dict[str, Any]]:
        if not aims_at_leader(step.kind, step.shape):
            return step.order, {}
        said = {name: metrics for name, node in self.nodes.items() if (metrics := node.metrics()) is not None}
        leading = [metrics for metrics in said.values() if metrics.state is State.LEADER]
        if not leading:
            return self._first(step, self._led_last), {"leader": None, "led_last": self._led_last}
        best = max(leading, key=lambda metrics: metrics.current_term)
        self._led_last = best.id
        evidence = {name: f"{metrics.state.value} in term {metrics.current_term}" for name, metrics in said.items()}
        return self._first(step, best.id), {"leader": best.id, "term": best.current_term, "evidence": evidence}

    def _first(self, step: FaultStep, node: str | None) -> Sequence[str]:
        """The step's order with `node` first; a kill's with those last that are down already."""
        down = [name for name in step.order if step.kind == "kill" and self.machines.is_held_down(name)]
        return sorted(step.order, key=lambda name: (name in down, name != node))

    def _note(self, step: FaultStep, state: FaultState, nodes: tuple[str, ...], detail: Mapping[str, Any]) -> None:
        now = self.timeline.now
        self._record_event(FaultEvent(now, step.id, step.kind, step.shape, state, nodes, detail))
        value = {"fault": step.id, "shape": step.shape, "state": state, "nodes": list(nodes)}
        self._record_op(Op(0, now, "info", NEMESIS, step.kind, None, value))

    def arm(self, step_id: str, moment: Moment) -> None:
        """Wait for a moment."""
        self._armed[step_id] = moment

    def disarm(self, step_id: str) -> Moment:
        """Wait no longer."""
        return self._armed.pop(step_id)


Found = tuple[Sequence[str], Mapping[str, Any]]
"""The nodes that a fault acts on, and circumstances for the ledger."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: how it is injected, shown, and undone."""

    inject: Callable[[Nemesis, Strike], Found]
    heal: Callable[[Nemesis, Strike], Mapping[str, Any]]
    prove: Callable[[Nemesis, Strike], Mapping[str, Any]]


# -- the network ------------------------------------------------------------------------------------------------------


def _cut_links(nemesis: Nemesis, strike: Strike) -> dict[str, list[str]]:
    grudge = PARTITION_SHAPES[strike.step.shape](strike.order)
    return {node: sorted(sources) for node, sources in grudge.items() if sources}


def _cut(nemesis: Nemesis, strike: Strike) -> Found:
    drops = _cut_links(nemesis, strike)
    for node, sources in drops.items():
        for source in sources:
            _change(nemesis.network.link(source, node), lambda link: link.cut.setdefault(strike.step.id))
    involved = sorted({*drops, *(source for sources in drops.values() for source in sources)})
    return involved, {"drops": drops, "mechanism": "simulated"}


def _uncut(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    met = 0
    for node, sources in _cut_links(nemesis, strike).items():
        for source in sources:
            link = nemesis.network.link(source, node)
            met += link.met.pop(strike.step.id, 0)
            _change(link, lambda link: link.cut.pop(strike.step.id, None))
    return {"met": met}


def _is_cut(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    pairs = [(source, node) for node, sources in _cut_links(nemesis, strike).items() for source in sources]
    assert all(strike.step.id in nemesis.network.link(*pair).cut for pair in pairs)
    return {"cut": [f"{source} to {node}" for source, node in pairs]}


def _change(link: Link, change: Callable[[Link], Any]) -> None:
    change(link)
    link.changed()


def _on_links(what: str, draw: Callable[[Random, Mapping[str, float]], Any]) -> Kind:
    """A trouble of all links of the nodes picked; `what` is the attribute of `Link` that holds it by owner."""

    def inject(nemesis: Nemesis, strike: Strike) -> Found:
        value = draw(strike.random, strike.step.options)
        for link in nemesis.network.links_of(strike.targets):
            getattr(link, what)[strike.step.id] = value
            link.changed()
        return strike.targets, {what: value, "mechanism": "simulated"}

    def heal(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
        met = 0
        for link in nemesis.network.links_of(list(nemesis.nodes)):
            owners: dict[str, Any] = getattr(link, what)
            if strike.step.id in owners:
                del owners[strike.step.id]
                met += link.met.pop(strike.step.id, 0)
                link.changed()
                link.let_go(nemesis.timeline)
        return {"met": met}

    def prove(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
        links = nemesis.network.links_of(strike.targets)
        assert all(strike.step.id in getattr(link, what) for link in links)
        return {"links": len(links)}

    return Kind(inject, heal, prove)


def _delay(random: Random, options: Mapping[str, float]) -> tuple[int, int, float]:
    drawn = random.choice((5, 30, 120, 400)) * random.uniform(0.5, 1.0)
    least, most = options.get("least_ms", 0), options.get("most_ms", drawn)
    return (int(least * _MILLISECOND), int(most * _MILLISECOND), options.get("share", 1.0))


def _loss(random: Random, options: Mapping[str, float]) -> float:
    return options.get("share", round(random.choice((0.02, 0.1, 0.4)) * random.uniform(0.5, 1.0), 4))


def _duplication(random: Random, options: Mapping[str, float]) -> float:
    return options.get("share", round(random.uniform(0.05, 0.5), 3))


# -- machines ---------------------------------------------------------------------------------------------------------


def on_machines(act: Callable[[Nemesis, Strike, str], Any], shows: Callable[[Node], bool], name: str) -> Kind:
    """Something that is done to the nodes picked, and undone when no step does it any more."""

    def inject(nemesis: Nemesis, strike: Strike) -> Found:
        evidence = {node: act(nemesis, strike, node) for node in strike.targets}
        told = {node: value for node, value in evidence.items() if value is not None}
        return strike.targets, {"mechanism": "simulated", **({name: told} if told else {})}

    def heal(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
        running = {node: nemesis.machines.let_go(node, strike.step.id) for node in strike.targets}
        return {"running": [node for node, runs in running.items() if runs]}

    def prove(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
        assert all(shows(nemesis.nodes[node]) for node in strike.targets)
        return {name: strike.targets}

    return Kind(inject, heal, prove)


def _set_clock(nemesis: Nemesis, strike: Strike, name: str) -> Mapping[str, int]:
    node, now = nemesis.nodes[name], nemesis.timeline.now
    ppm = int(strike.step.options.get("ppm", strike.random.randint(-50_000, 50_000)))
    node.clock.set_speed(now, ppm)
    ahead = 0
    # A jump is no drift: where a lease trusts clocks to differ in speed by a little only, it is not theirs to survive.
    jumps = strike.random.random() < 0.5 and "ppm" not in strike.step.options
    if jumps and str(node.config.read_mode) == "read-index":
        ahead = int(strike.random.choice((0.05, 0.5, 5.0)) * strike.random.random() * SECOND)
        node.clock.jump(now, ahead)
    node.clock_changed()
    return {"ppm": ppm, "ahead": ahead}


def _clock_back(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    for name in strike.targets:
        nemesis.nodes[name].clock.set_speed(nemesis.timeline.now, 0)
        nemesis.nodes[name].clock_changed()
    return {}


def _slow(nemesis: Nemesis, strike: Strike, name: str) -> float:
    drawn = round(strike.random.choice((10.0, 50.0, 300.0)) * strike.random.uniform(0.5, 1.0), 1)
    factor = strike.step.options.get("factor", drawn)
    nemesis.nodes[name].slow_disk[strike.step.id] = factor
    return factor


def _slow_no_more(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    for name in strike.targets:
        nemesis.nodes[name].slow_disk.pop(strike.step.id, None)
    return {}


# -- moments ----------------------------------------------------------------------------------------------------------


def _arm(nemesis: Nemesis, strike: Strike) -> Found:
    nemesis.arm(strike.step.id, Moment(MOMENTS[strike.step.shape], strike.step.id, strike.random, strike.step.options))
    return list(strike.order), {"mechanism": "simulated", "waits_for": MOMENTS[strike.step.shape].why}


def _disarm(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    moment = nemesis.disarm(strike.step.id)
    moment.over()
    struck = moment.struck
    for name in nemesis.nodes:
        if name in struck:
            nemesis.machines.let_go(name, strike.step.id)
    return {"struck": struck}


# -- operators --------------------------------------------------------------------------------------------------------


def _remove(nemesis: Nemesis, strike: Strike) -> Found:
    nemesis.operators.remove(strike.targets, strike.step.id)
    return strike.targets, {"mechanism": "simulated", "wanted": nemesis.operators.wanted()}


def _bring_back(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    changes = nemesis.operators.changes
    nemesis.operators.bring_back(strike.step.id, stay_out=bool(strike.step.options.get("for_good")))
    gone = {"removed_for_good": list(nemesis.operators.gone)} if nemesis.operators.gone else {}
    return {"changes_so_far": changes, "wanted": nemesis.operators.wanted(), **gone}


def _transfer(nemesis: Nemesis, strike: Strike) -> Found:
    target = strike.order[-1] if aims_at_leader("transfer", strike.step.shape) else strike.order[0]
    nemesis.operators.transfer(target)
    return [target], {"mechanism": "simulated", "target": target}


_KILL = on_machines(lambda n, s, node: n.machines.kill(node, s.step.id), lambda node: not node.running, "gone")
_POWER = on_machines(
    lambda n, s, node: n.machines.fail_power(node, s.step.id), lambda node: not node.powered, "lost_bytes"
)
_PAUSE = on_machines(
    lambda n, s, node: n.machines.pause(node, s.step.id), lambda node: node.paused or not node.running, "paused"
)
_FULL = on_machines(lambda n, s, node: n.machines.fill_disk(node, s.step.id), lambda node: node.disk.full, "full")
_BROKEN = on_machines(
    lambda n, s, node: n.machines.break_disk(node, s.step.id), lambda node: node.disk.broken, "broken"
)
_CLOCK = on_machines(_set_clock, lambda node: True, "set")
_SLOW = on_machines(_slow, lambda node: bool(node.slow_disk), "slower")

KINDS: Mapping[str, Kind] = {
    "partition": Kind(_cut, _uncut, _is_cut),
    "kill": _KILL,
    "pause": _PAUSE,
    "power": _POWER,
    "loss": _on_links("loss", _loss),
    "duplicate": _on_links("duplication", _duplication),
    "delay": _on_links("delay", _delay),
    "clog": _on_links("clogged", lambda random, options: None),
    "slow-disk": Kind(_SLOW.inject, _slow_no_more, _SLOW.prove),
    "full-disk": _FULL,
    "bad-disk": _BROKEN,
    "clock": Kind(_CLOCK.inject, _clock_back, _CLOCK.prove),
    "membership": Kind(_remove, _bring_back, lambda nemesis, strike: {"asked": True}),
    "transfer": Kind(_transfer, lambda n, s: {"transfers_so_far": n.operators.transfers}, lambda n, s: {"asked": True}),
    "moment": Kind(_arm, _disarm, lambda nemesis, strike: {"armed": True}),
}
"""Every kind of fault that the simulator has."""
