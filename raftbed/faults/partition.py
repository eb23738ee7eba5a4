"""Partitions: packets between nodes are dropped, silently where the hosts can, in one direction or both.

The controller's own way to the hosts, and the clients', is never cut: only the addresses at which peers reach each
other are. Where a packet filter can be used, a node drops what comes from those that it is not to hear. Where none
can, the cut is made with blackhole routes, on the sending side; the direction is the same, but a sender that connects
notices, so that the ledger records which way was used.

Theory of operation
-------------------
Whether packets pass is shown with TCP connections, tried all at once, to a port at which nobody needs to listen: a
refusal is an answer. A connection needs both directions, so that a cut in either closes it. Which direction is cut
follows from the counters of the cut: a node that drops what S says has counted packets from S; and when it counted
*answers* from the port that it probed at S, then its probe had reached S, so that the other direction is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from raftbed.errors import FaultError, HostError
from raftbed.faults.base import settle
from raftbed.faults.shapes import PARTITION_SHAPES, Grudge
from raftbed.faults.toolbox import PacketCount, Toolbox
from raftbed.hosts.parallel import in_parallel
from raftbed.model import FaultStep

Pair = tuple[str, str]
"""A node, and another whose packets it drops, or to which it tries to connect."""

PROBE_PORTS = (4, 22)
"""Ports to probe: one that is assigned to nobody, which costs nobody anything; SSH where a firewall hides that one."""

_PROBE_SECONDS = (0.3, 1.0, 3.0)
"""Seconds that a connection is given by one attempt to prove something after the other: slow hosts take long to answer.
As many attempts are made."""

_HEAL_ATTEMPTS = 10
_OPEN = ("connected", "refused")


class Partition:
    """Implements :class:`raftbed.faults.base.Fault`.

    Parameters:
        toolboxes: node to the faults' corner of its host.
        mechanism: one that all of the hosts can do.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        toolboxes: Mapping[str, Toolbox],
        mechanism: str,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._toolboxes = toolboxes
        self._mechanism = mechanism
        self._sleep = sleep
        self._port = PROBE_PORTS[0]
        self._grudges: dict[str, Grudge] = {}  # of each step that is in force, or not yet shown to be over
        self._uncut: set[tuple[str, str]] = set()  # (step, node) whose rules are gone
        self._lifted: set[str] = set()  # steps whose rules are gone everywhere

    async def check_open(self) -> None:
        """Show that probes can pass while nothing is cut, and choose the port for them.

        Raises:
            HostError: some nodes cannot reach each other before any fault.
        """
        closed: list[str] = []
        for port in PROBE_PORTS:
            self._port = port
            for seconds in _PROBE_SECONDS:
                closed = _not_open(await self._connect(self._everybody(), seconds))
                if not closed:
                    return
        raise HostError(
            f"nodes cannot reach each other before any fault: {', '.join(closed)}.",
            remedy="Look for firewalls and routes on these hosts.",
        )

    async def inject(self, step: FaultStep, order: Sequence[str]) -> Mapping[str, Any]:
        """See `Fault`."""
        grudge = PARTITION_SHAPES[step.shape](order)
        self._grudges[step.id] = grudge
        cuts = self._cuts(grudge)

        async def cut(node: str) -> None:
            box, addresses = self._toolboxes[node], cuts[node]
            undo = box.heal(self._mechanism, step.id, self._port, addresses)
            await box.act(step.id, undo=undo, do=box.cut(self._mechanism, step.id, self._port, addresses))

        await settle(cut(node) for node in cuts)
        return {
            "nodes": sorted(_involved(grudge)),
            "mechanism": self._mechanism,
            "drops": {node: sorted(sources) for node, sources in grudge.items() if sources},
        }

    async def prove(self, step: FaultStep) -> Mapping[str, Any]:
        """See `Fault`: whoever is cut off cannot connect, drops are counted, and what the shape leaves open is open."""
        problems: list[str] = []
        for attempt, seconds in enumerate(_PROBE_SECONDS, start=1):
            evidence, problems = await self._examine(step, seconds)
            if not problems:
                return {**evidence, "attempts": attempt}
        raise FaultError(f"{step.id}: the partition is not as planned: {'; '.join(problems)}.")

    async def _examine(self, step: FaultStep, seconds: float) -> tuple[dict[str, Any], list[str]]:
        """One look at a partition in force: what was seen, and what of it is not as planned."""
        grudge = self._grudges[step.id]
        pairs = _pairs(grudge)
        before = self._dropped_by_any()
        connections = await self._connect(self._everybody(), seconds)
        met = await self._met(step, sorted({node for node, _ in pairs}))
        maybe_cut = before | self._dropped_by_any()  # other faults may begin and end meanwhile
        problems = [f"{a} reached {b}" for a, b in pairs if connections[a, b] in _OPEN or connections[b, a] in _OPEN]
        one_way: list[Pair] = []
        for node, source in pairs:
            open_back = (source, node) not in maybe_cut
            if met is not None:
                counts = met.get((node, source), PacketCount(0, 0))
                if not counts.packets:
                    problems.append(f"{node} met no packet of {source}")
                if open_back and not counts.answers:
                    problems.append(f"{node} is not heard by {source} either")
            elif open_back and connections[node, source] != "timeout":
                problems.append(f"{node} is not heard by {source} either ({connections[node, source]})")
            if open_back:
                one_way.append((source, node))
        untouched = {
            pair: outcome
            for pair, outcome in connections.items()
            if pair not in maybe_cut and (pair[1], pair[0]) not in maybe_cut
        }
        problems += [f"{closed} although nothing cuts it" for closed in _not_open(untouched)]
        evidence: dict[str, Any] = {
            "connections": {f"{a} to {b}": connections[a, b] for a, b in pairs},
            "cut_one_way": [f"{source} to {node}" for source, node in one_way],
            "still_open": len(untouched),
        }
        if met is not None:
            evidence["packets_met"] = {f"{source} to {node}": count.packets for (node, source), count in met.items()}
        return evidence, problems

    async def heal(self, step: FaultStep) -> Mapping[str, Any]:
        """See `Fault`: afterwards nodes connect again, but for pairs that another fault still cuts."""
        grudge = self._grudges.get(step.id)
        if grudge is None:
            return {}
        cuts = self._cuts(grudge)
        by_dead_man: list[str] = []

        async def uncut(node: str) -> None:
            if (step.id, node) in self._uncut:
                return  # healing is tried again, and failed elsewhere
            box = self._toolboxes[node]
            if not await box.undo(step.id, do=box.heal(self._mechanism, step.id, self._port, cuts[node])):
                by_dead_man.append(node)
            self._uncut.add((step.id, node))

        await settle(uncut(node) for node in cuts)
        self._lifted.add(step.id)
        connections = await self._show_open(step, grudge)
        del self._grudges[step.id]
        self._lifted.discard(step.id)
        evidence: dict[str, Any] = {"connections": {f"{a} to {b}": how for (a, b), how in connections.items()}}
        if by_dead_man:
            evidence["healed_before_by_dead_man"] = sorted(by_dead_man)
        return evidence

    async def _show_open(self, step: FaultStep, grudge: Grudge) -> Mapping[Pair, str]:
        closed: list[str] = []
        for attempt in range(_HEAL_ATTEMPTS):
            if attempt:
                await self._sleep(0.1)
            before = self._dropped_by_any()
            pairs = [(a, b) for a, b in _pairs(grudge) if (a, b) not in before and (b, a) not in before]
            connections = await self._connect(pairs, _PROBE_SECONDS[min(attempt, len(_PROBE_SECONDS) - 1)])
            # Another partition may have begun while this one was being proved over.
            after = self._dropped_by_any()
            relevant = {
                (a, b): how for (a, b), how in connections.items() if (a, b) not in after and (b, a) not in after
            }
            closed = _not_open(relevant)
            if not closed:
                return relevant
        raise FaultError(f"{step.id}: healed, but still cut: {', '.join(closed)}.")

    # -- mechanism ------------------------------------------------------------------------------------------------

    def _everybody(self) -> list[Pair]:
        return [(node, other) for node in self._toolboxes for other in self._toolboxes if node != other]

    def _dropped_by_any(self) -> set[Pair]:
        """The pairs that any step cuts, or may still cut."""
        return {pair for name, grudge in self._grudges.items() if name not in self._lifted for pair in _pairs(grudge)}

    def _cuts(self, grudge: Grudge) -> dict[str, list[str]]:
        """Node to the addresses that it is to cut: sources with a packet filter, destinations with routes."""
        address = {node: box.host.address for node, box in self._toolboxes.items()}
        if self._mechanism != "route":
            return {node: sorted(address[source] for source in sources) for node, sources in grudge.items() if sources}
        cuts: dict[str, list[str]] = {}
        for node, source in _pairs(grudge):
            cuts.setdefault(source, []).append(address[node])
        return cuts

    async def _met(self, step: FaultStep, nodes: Sequence[str]) -> dict[Pair, PacketCount] | None:
        """(node, source) to what the node's cut met of it; None where the mechanism cannot count."""
        if self._mechanism == "route":
            return None
        names = {box.host.address: node for node, box in self._toolboxes.items()}
        found = await in_parallel(self._toolboxes[node].met(self._mechanism, step.id) for node in nodes)
        return {
            (node, names[address]): count
            for node, counts in zip(nodes, found, strict=True)
            for address, count in counts.items()
            if address in names
        }

    async def _connect(self, pairs: Collection[Pair], seconds: float) -> dict[Pair, str]:
        """Try to connect from the first to the second of each pair, all at once, for so many seconds."""
        targets: dict[str, list[str]] = {}
        for node, other in pairs:
            targets.setdefault(node, []).append(other)

        async def probe(node: str) -> list[tuple[Pair, str]]:
            addresses = {self._toolboxes[other].host.address: other for other in targets[node]}
            answers = await self._toolboxes[node].connect(list(addresses), port=self._port, seconds=seconds)
            return [((node, addresses[address]), answer) for address, answer in answers.items()]

        found = await in_parallel(probe(node) for node in targets)
        return {pair: answer for part in found for pair, answer in part}


def _pairs(grudge: Grudge) -> list[Pair]:
    """(node, one whose packets it drops), sorted."""
    return sorted((node, source) for node, sources in grudge.items() for source in sources)


def _not_open(connections: Mapping[Pair, str]) -> list[str]:
    return [f"{a} to {b}: {how}" for (a, b), how in connections.items() if how not in _OPEN]


def _involved(grudge: Grudge) -> set[str]:
    return {node for node, source in _pairs(grudge)} | {source for _, source in _pairs(grudge)}
