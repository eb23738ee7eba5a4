"""What raftbed asks of a system under test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from raftbed.clients import Connection
from raftbed.store import RunDirectory, StatusSample


class System(Protocol):
    """A replicated system on the hosts of a run: installed, started, asked, stopped, collected."""

    async def install(self) -> None:
        """Heal what an earlier run left on the hosts, bring the code there, write each node's configuration.

        Raises:
            DeployError, HostError: names the host.
        """
        ...

    async def start(self) -> None:
        """Start every node and make them a cluster.

        Raises:
            HostError: a node did not start; carries the end of its log.
        """
        ...

    async def wait_ready(self, *, timeout: float) -> bool:
        """Wait until every node answers and all agree on one leader; False when `timeout` seconds were not enough.

        Nodes whose hosts `lost_hosts` has found lost are not waited for.
        """
        ...

    def connection(self) -> Connection:
        """How the clients reach it."""
        ...

    async def status(self, node: str) -> StatusSample:
        """What a node says of itself; unreachable rather than an error. Its time is left at 0."""
        ...

    async def lost_hosts(self) -> Mapping[str, str]:
        """The nodes whose hosts do not answer any more, and what is known of why: a failure of the bed, no finding."""
        ...

    async def unexpected_deaths(self, held_down: set[str]) -> Mapping[str, Mapping[str, Any]]:
        """The nodes whose process is gone though no fault holds it down, each with its evidence.

        Parameters:
            held_down: those that a fault has killed and not started again.
        """
        ...

    async def stop(self) -> None:
        """Stop every node cleanly, those also that a fault holds down or paused. Does not raise."""
        ...

    async def kill(self, *, timeout: float) -> list[str]:
        """Kill every node within `timeout` seconds; returns those for which that is not proved. Does not raise."""
        ...

    async def collect(self, run: RunDirectory) -> list[str]:
        """Fetch logs and traces of every node; returns one sentence for each that could not be had."""
        ...

    async def close(self) -> None:
        """Close connections. Idempotent."""
        ...
