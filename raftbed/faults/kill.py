"""Kills: the process of a node is ended with SIGKILL, and started again on its data.

SIGKILL does not test what was synced: the kernel keeps what the process wrote. It tests what a node forgets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from raftbed.errors import FaultError
from raftbed.faults.base import NodeControl, settle
from raftbed.faults.shapes import KILL_SHAPES
from raftbed.hosts.parallel import in_parallel
from raftbed.model import FaultStep

_ANSWER_SECONDS = 15.0


class Kill:
    """Implements :class:`raftbed.faults.base.Fault`.

    A node that two steps have killed is started again when the later one lets go.

    Parameters:
        control: of the processes.
    """

    def __init__(self, control: NodeControl) -> None:
        self._control = control
        self._owners: dict[str, set[str]] = {}  # node to the steps that hold it down
        self._locks: dict[str, asyncio.Lock] = {}
        self._found_dead: dict[str, str] = {}  # node to the step that came to kill it

    def found_dead(self) -> Mapping[str, str]:
        """The nodes that were dead when a step came to kill them, though none held them down, and that step's id."""
        return self._found_dead

    def held_down(self) -> set[str]:
        """The nodes that a step in force has killed."""
        return {node for node, owners in self._owners.items() if owners}

    async def inject(self, step: FaultStep, order: Sequence[str]) -> Mapping[str, Any]:
        """See `Fault`."""
        nodes = list(KILL_SHAPES[step.shape](order))
        evidence: dict[str, Any] = {}

        async def kill(node: str) -> None:
            owners = self._owners.setdefault(node, set())
            owners.add(step.id)
            async with self._lock(node):
                if owners == {step.id} and not await self._control.is_running(node):
                    self._found_dead[node] = step.id
                evidence[node] = dict(await self._control.kill(node))

        await settle(kill(node) for node in nodes)
        found = sorted(node for node, by in self._found_dead.items() if by == step.id)
        circumstances = {"found_dead": found} if found else {}
        return {"nodes": sorted(nodes), "signal": "SIGKILL", "processes": evidence, **circumstances}

    async def prove(self, step: FaultStep) -> Mapping[str, Any]:
        """See `Fault`: the processes are gone."""
        nodes = sorted(self._of(step))
        running = await in_parallel(self._control.is_running(node) for node in nodes)
        alive = [node for node, runs in zip(nodes, running, strict=True) if runs]
        if alive:
            raise FaultError(f"{step.id}: {', '.join(alive)} still runs after SIGKILL.")
        return {"gone": nodes}

    async def heal(self, step: FaultStep) -> Mapping[str, Any]:
        """See `Fault`: the nodes run again and answer, but for those that another step holds down."""
        nodes = sorted(self._of(step))
        restarted: dict[str, Any] = {}
        left_down: list[str] = []

        async def restart(node: str) -> None:
            async with self._lock(node):
                if self._owners[node] - {step.id}:
                    left_down.append(node)
                else:
                    if not await self._control.is_running(node):
                        restarted[node] = dict(await self._control.start(node))
                    if not await self._control.is_answering(node, timeout=_ANSWER_SECONDS):
                        message = f"{step.id}: {node} does not answer {_ANSWER_SECONDS:g} s after its restart."
                        raise FaultError(message, host=node)
                # Last, so that a restart which fails or is cut short can be tried again.
                self._owners[node].discard(step.id)

        await settle(restart(node) for node in nodes)
        return {"restarted": restarted, "left_down": sorted(left_down)}

    def _of(self, step: FaultStep) -> set[str]:
        return {node for node, owners in self._owners.items() if step.id in owners}

    def _lock(self, node: str) -> asyncio.Lock:
        return self._locks.setdefault(node, asyncio.Lock())
