"""A simulated run of the whole nodes: the phases of `raftbed.sim.simulation`, with everything that a host would run."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

from raftbed.clients import Connection
from raftbed.model import SECOND
from raftbed.sim.clock import NodeClock
from raftbed.sim.faults import KINDS, Kind
from raftbed.sim.network import Network
from raftbed.sim.recording import Recording
from raftbed.sim.replies import Node
from raftbed.sim.shell.clients import Clients
from raftbed.sim.shell.faults import SHELL_KINDS
from raftbed.sim.shell.logs import kept_apart
from raftbed.sim.shell.loop import Deadlock, VirtualLoop
from raftbed.sim.shell.node import PORT, ShellNode
from raftbed.sim.shell.streams import CLIENTS, Streams
from raftbed.sim.simulation import Simulation

_POLL = 0.05
_STOP = 10.0  # seconds that a node has to stop when it is told to
_SLACK = 60.0
_CALM = 2.0  # seconds after the last fault in which something may still come of it
_GARBLED = re.compile(r"A frame of|Not a Raft message|There is no method|does not speak HTTP")
_GIVEN_UP = "is unreachable: no answer in time"


class ShellSimulation(Simulation):
    """Executes one plan with whole nodes. Parameters are those of `Simulation`."""

    _kinds: Mapping[str, Kind] = {**KINDS, **SHELL_KINDS}
    _streams: Streams
    _shells: Mapping[str, ShellNode]
    _clients: Clients

    def run(self) -> Recording:
        """Go through all phases.

        Raises:
            Deadlock: something will never happen; names what waits.
        """
        plan = self.plan
        operation = 5 * (plan.operation_timeout + 0.2)
        longest = plan.time_limit + 2 * plan.recovery_timeout + plan.keys * operation + _STOP + _SLACK
        self._limit = int(longest * SECOND)
        with kept_apart(self._take_log):
            try:
                return super().run()
            finally:
                for node in self._shells.values():
                    node.dispose()
                self._clients.dispose()

    # -- what is simulated --------------------------------------------------------------------------------------------

    def _make_network(self) -> Network:
        self._streams = Streams(self.timeline, self.plan.nodes, self.plan.seed, self._log_of_messages)
        return self._streams

    def _make_nodes(self, cluster: str, segment_size: int) -> Mapping[str, Node]:
        plan = self.plan
        addresses = {name: f"{name}:{PORT}" for name in plan.nodes}
        loop = VirtualLoop(
            self.timeline, CLIENTS, NodeClock(), Random(f"{plan.seed}:loop:{CLIENTS}"),
            network=self._streams, failed=_broken,
        )  # fmt: skip
        self._clients = Clients(loop, addresses, Random(f"{plan.seed}:impatience"))
        self._shells = {
            name: ShellNode(
                name,
                cluster=cluster,
                peers=addresses,
                options=plan.options_of(name),
                timeline=self.timeline,
                network=self._streams,
                seed=plan.seed,
                segment_size=segment_size,
                observer=self,
                failed=self._asyncio_failed,
                clients=self._clients,
            )
            for name in plan.nodes
        }
        for node in self._shells.values():
            node.make_core = self._rare_points.core_of(node)
        return self._shells

    def _connection(self, number: int) -> Connection:
        return self._clients

    async def _stop(self) -> None:
        """Tell every node to stop, and see that it does."""
        self._enter("stop")
        for node in self._shells.values():
            node.stop()
        until = self.timeline.now + int(_STOP * SECOND)
        while self.timeline.now < until and any(node.running for node in self._shells.values()):
            await self.timeline.sleep(_POLL)
        for name, node in self._shells.items():
            if node.running:
                what = f"{name}: it did not stop within {_STOP:g} s of SIGTERM."
                self.recording.event(self.timeline.now, "error", what, node=name, log=what)
        await self._clients.close()

    def _bound_events(self) -> None:
        """The bound on virtual time is enough: nodes wait for their sockets."""

    def _no_end(self) -> Exception:
        waiting = self._clients.loop.waiting()
        return Deadlock(f"the run has no end; clients wait in {', '.join(waiting) or 'nothing'}.")

    def _is_excused(self, node: Node) -> bool:
        return super()._is_excused(node) or self._shells[node.name].failed_by_disk

    # -- logs ---------------------------------------------------------------------------------------------------------

    def _take_log(self, place: str, record: logging.LogRecord, text: str) -> None:
        if place == CLIENTS:
            return
        node, level = self._shells[place], record.levelname
        if record.levelno >= logging.ERROR:
            node.last_words = record.getMessage()
            if self._is_excused(node):
                level = "a fault has it that it"  # fails: no finding, and no word that is one
        elif record.levelno >= logging.WARNING:
            self._look_at_warning(node, record.getMessage())
        first, *more = text.splitlines()
        self._log(node, f"{level} {first}")
        self.recording.logs[place] += more

    def _look_at_warning(self, node: ShellNode, said: str) -> None:
        """A node that mends what another one broke hides it well: here, where all is known, it is a finding."""
        what = ""
        if _GARBLED.search(said):
            what = "it was sent what is no message, though connections garble nothing"
        elif _GIVEN_UP in said and self._is_calm():
            what = "it had no answer from a peer, though nothing was in the way"
        if what:
            self.recording.event(self.timeline.now, "error", f"{node.name}: {what}.", node=node.name, log=said)

    def _is_calm(self) -> bool:
        """No fault is in force, the last one was over long ago, and nobody was told to stop."""
        ledger = self.recording.faults
        if any(node.stopping for node in self._shells.values()):
            return False
        if not ledger:
            return True
        states = Counter(event.state for event in ledger)
        return states["injected"] == states["healed"] and self.timeline.now - ledger[-1].time >= _CALM * SECOND

    def _asyncio_failed(self, node: ShellNode, context: dict[str, Any]) -> None:
        """What asyncio's own handler would log."""
        error = context.get("exception")
        logging.getLogger("asyncio").error(context.get("message", "Unhandled exception"), exc_info=error)


def _broken(context: dict[str, Any]) -> None:
    """The client's process: what goes wrong there is a defect of the simulator."""
    raise RuntimeError(f"the simulator's client broke: {context.get('message')}") from context.get("exception")
