"""What a kind of fault is, and what it may ask of the run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from raftbed.model import FaultStep

_T = TypeVar("_T")


async def settle(actions: Iterable[Awaitable[_T]]) -> list[_T]:
    """Run `actions` side by side, each to its end, whatever becomes of the others; then raise the first error, if any.

    What acts on hosts must not be cancelled half way because another host failed: it might still happen, later.
    """
    outcomes = await asyncio.gather(*actions, return_exceptions=True)
    results: list[_T] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
        results.append(outcome)
    return results


@dataclass(frozen=True, slots=True)
class LeaderSeen:
    """Who seems to lead; best effort, since several may claim it.

    Attributes:
        node: the one with the highest term among those that claim it.
        term: its term.
        evidence: what each node that was reached said.
    """

    node: str
    term: int
    evidence: Mapping[str, Any]


class NodeControl(Protocol):
    """What faults may do to the processes under test; a system implements it."""

    async def kill(self, node: str) -> Mapping[str, Any]:
        """Kill the node's process with SIGKILL and verify that it is gone; returns the evidence.

        Raises:
            HostError: it could not be killed.
        """
        ...

    async def start(self, node: str) -> Mapping[str, Any]:
        """Start the node's process on its data; returns the evidence.

        Raises:
            HostError: it could not be started.
        """
        ...

    async def is_running(self, node: str) -> bool:
        """Its process runs."""
        ...

    async def is_answering(self, node: str, *, timeout: float) -> bool:
        """It answers within `timeout` seconds."""
        ...

    async def leader(self) -> LeaderSeen | None:
        """Who leads now, as far as the nodes say."""
        ...


class Fault(Protocol):
    """One kind of fault. Each method is called in turn for each planned step of that kind; several may overlap.

    A step that was injected, even in part, can always be healed; healing twice is harmless.
    """

    async def inject(self, step: FaultStep, order: Sequence[str]) -> Mapping[str, Any]:
        """Make it happen; returns circumstances for the ledger, with the "nodes" that it acts on.

        Parameters:
            step: as planned.
            order: its nodes, the leader first where the shape aims at it.

        Raises:
            FaultError, HostError: it could not be done.
        """
        ...

    async def prove(self, step: FaultStep) -> Mapping[str, Any]:
        """Show that it took; returns the evidence.

        Raises:
            FaultError: it did not.
        """
        ...

    async def heal(self, step: FaultStep) -> Mapping[str, Any]:
        """Undo it, leave other steps' faults alone, and show that it is over; returns the evidence.

        Raises:
            FaultError, HostError: it could not be undone, or is not over.
        """
        ...
