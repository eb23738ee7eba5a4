"""Partitions: packets between nodes are dropped, silently where the hosts can, in one direction or both.

The controller's own way to the hosts, and the clients', is never cut: only the addresses at which peers reach each
other are. Where hosts have neither nft nor iptables, a cut is made with blackhole routes, on the sending side; the
direction is the same, but the sender notices, so that the ledger records which way was used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from raftbed.errors import FaultError
from raftbed.faults.shapes import PARTITION_SHAPES, Grudge
from raftbed.faults.toolbox import Toolbox
from raftbed.hosts.parallel import in_parallel
from raftbed.model import FaultStep

_PROBE_SECONDS = 0.3
_HEAL_ATTEMPTS = 10
_OPEN = ("connected", "refused")  # refused: somebody answered, so that the way is open


class Partition:
    """Implements :class:`raftbed.faults.base.Fault`.

    Parameters:
        toolboxes: node to the faults' corner of its host.
        mechanism: what all of the hosts can do.
        port: that is probed; something listens there as long as the host lives (SSH).
    """

    def __init__(self, toolboxes: Mapping[str, Toolbox], mechanism: str, *, port: int = 22) -> None:
        self._toolboxes = toolboxes
        self._mechanism = mechanism
        self._port = port
        self._grudges: dict[str, Grudge] = {}  # of each step in force

    async def inject(self, step: FaultStep, order: Sequence[str]) -> Mapping[str, Any]:
        """See `Fault`."""
        grudge = PARTITION_SHAPES[step.shape](order)
        self._grudges[step.id] = grudge
        cuts = self._cuts(grudge)

        async def cut(node: str) -> None:
            box, addresses = self._toolboxes[node], cuts[node]
            undo = box.cut("heal", self._mechanism, step.id, addresses)
            await box.act(step.id, undo=undo, do=box.cut("cut", self._mechanism, step.id, addresses))

        await in_parallel(cut(node) for node in cuts)
        return {
            "nodes": sorted(_involved(grudge)),
            "mechanism": self._mechanism,
            "drops": {node: sorted(sources) for node, sources in grudge.items() if sources},
        }

    async def prove(self, step: FaultStep) -> Mapping[str, Any]:
        """See `Fault`: no node can connect to one whose packets it drops, and drops are counted."""
        pairs = _pairs(self._grudges[step.id])
        results = await self._connect(pairs, _PROBE_SECONDS)
        through = [f"{source} reached {target}" for (source, target), result in results.items() if result in _OPEN]
        if through:
            raise FaultError(f"{step.id}: the partition did not take: {', '.join(through)}.")
        evidence: dict[str, Any] = {"connections": {f"{a} to {b}": result for (a, b), result in results.items()}}
        if self._mechanism != "route":
            nodes = sorted({node for node, _ in pairs})
            boxes = [self._toolboxes[node] for node in nodes]
            counts = await in_parallel(box.dropped(self._mechanism, step.id) for box in boxes)
            evidence["packets_dropped"] = dict(zip(nodes, counts, strict=True))
            silent = [node for node, count in evidence["packets_dropped"].items() if not count]
            if silent:
                raise FaultError(f"{step.id}: {', '.join(silent)} dropped no packet, although it was sent some.")
        return evidence

    async def heal(self, step: FaultStep) -> Mapping[str, Any]:
        """See `Fault`: afterwards nodes connect again, but for pairs that another fault still cuts."""
        grudge = self._grudges.get(step.id)
        if grudge is None:
            return {}
        cuts = self._cuts(grudge)

        async def uncut(node: str) -> None:
            box = self._toolboxes[node]
            await box.undo(step.id, do=box.cut("heal", self._mechanism, step.id, cuts[node]))

        # Every host is healed as far as it can be, whatever becomes of the others.
        ended = await asyncio.gather(*(uncut(node) for node in cuts), return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, BaseException):
                raise outcome
        del self._grudges[step.id]
        pairs: list[tuple[str, str]] = []
        closed: list[str] = []
        for _ in range(_HEAL_ATTEMPTS):
            # Looked up anew each time: another partition may have begun while this one is being proved over.
            others = {pair for other in self._grudges.values() for pair in _both_ways(_pairs(other))}
            pairs = [pair for pair in _pairs(grudge) if pair not in others]
            results = await self._connect(pairs, _PROBE_SECONDS)
            closed = [f"{a} to {b}: {result}" for (a, b), result in results.items() if result not in _OPEN]
            if not closed:
                return {"connections": {f"{a} to {b}": result for (a, b), result in results.items()}}
            await asyncio.sleep(0.1)
        raise FaultError(f"{step.id}: healed, but still cut: {', '.join(closed)}.")

    def _cuts(self, grudge: Grudge) -> dict[str, list[str]]:
        """Node to the addresses given to its cut.sh: sources with a packet filter, destinations with routes."""
        address = {node: box.host.address for node, box in self._toolboxes.items()}
        if self._mechanism != "route":
            return {node: sorted(address[source] for source in sources) for node, sources in grudge.items() if sources}
        cuts: dict[str, list[str]] = {}
        for node, source in _pairs(grudge):
            cuts.setdefault(source, []).append(address[node])
        return cuts

    async def _connect(self, pairs: Sequence[tuple[str, str]], seconds: float) -> dict[tuple[str, str], str]:
        """Try to connect from the first to the second of each pair, all at once."""
        targets: dict[str, list[str]] = {}
        for node, other in pairs:
            targets.setdefault(node, []).append(other)

        async def probe(node: str) -> list[tuple[tuple[str, str], str]]:
            addresses = {self._toolboxes[other].host.address: other for other in targets[node]}
            answers = await self._toolboxes[node].connect(list(addresses), port=self._port, seconds=seconds)
            return [((node, addresses[address]), answer) for address, answer in answers.items()]

        found = await in_parallel(probe(node) for node in targets)
        return {pair: answer for part in found for pair, answer in part}


def _pairs(grudge: Grudge) -> list[tuple[str, str]]:
    """(node, one whose packets it drops), sorted."""
    return sorted((node, source) for node, sources in grudge.items() for source in sources)


def _both_ways(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    # A connection needs packets both ways, so a cut in one direction closes the other for a probe.
    return [*pairs, *((b, a) for a, b in pairs)]


def _involved(grudge: Grudge) -> set[str]:
    return {node for node, source in _pairs(grudge)} | {source for _, source in _pairs(grudge)}
