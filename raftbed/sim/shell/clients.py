"""Clients and operators of the whole nodes: they speak HTTP, with the client of a live run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from random import Random
from typing import Any

import aiohttp
import msgspec

from raftbed.nodes.raft.errors import Noop
from raftbed.nodes.raft.events import ChangeMembership, Event, Initialize, TransferLeadership
from raftbed.sim.replies import Node
from raftbed.sim.shell.loop import VirtualLoop
from raftbed.sim.timeline import Suspend
from raftbed.systems.kv_client import KeyValueConnection
from raftbed.workloads.base import Answer, Request

_KEPT = 1e9  # seconds: the pool looks at the wall clock, so that no connection may ever be too old for it
_OPERATOR_TIMEOUT = 1.0
_TRIES = 40  # of an initialization, while the node does not listen yet
_TRY_AGAIN = 0.025
_MOST_PATIENCE = 0.03  # seconds after which an impatient client has hung up
_LEAST_PATIENCE, _MOST_HASTE = 0.001, 0.2  # seconds that a hasty client gives a node


Manner = dict[str, tuple[list[str], float]]
"""Owner to the nodes, and the share of attempts at them that are made in this manner."""


class Clients:
    """The machine that clients and operators are on, and its HTTP client; implements `raftbed.clients.Connection`.

    Parameters:
        loop: of the process there.
        addresses: node to "name:port".
        random: drawn from for who hangs up, and when.

    Attributes:
        impatience: owner to the nodes, and the share of attempts at them that are given up early.
        haste: owner to the nodes, and the share of attempts for which they are given little time.
        met: owner to how many attempts were the one or the other.
    """

    def __init__(self, loop: VirtualLoop, addresses: Mapping[str, str], random: Random) -> None:
        self.loop = loop
        self.impatience: Manner = {}
        self.haste: Manner = {}
        self.met: dict[str, int] = {}
        self._draw = random.random
        self._addresses = addresses
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._open: dict[str, KeyValueConnection] = {}
        self._running: dict[asyncio.Task[Any], None] = {}
        loop.run_until_complete(self._make())

    async def _make(self) -> None:
        for node, address in self._addresses.items():
            connector = aiohttp.UnixConnector(path=address, limit=0, keepalive_timeout=_KEPT)
            self._sessions[node] = aiohttp.ClientSession(connector=connector)
            self._open[node] = KeyValueConnection(self._sessions, self._addresses)

    def dispose(self) -> None:
        """The run is over: let go of everything."""
        self.loop.dispose()  # first: it hears no complaints any more
        for session in self._sessions.values():
            session.detach()
        self._sessions.clear()

    async def close(self) -> None:
        """Close all connections."""
        await Suspend(lambda resume: self._begin(self._close(), lambda _: self.loop.timeline.after(0, resume, None)))

    async def _close(self) -> None:
        for session in self._sessions.values():
            await session.close()

    async def attempt(self, node: str, request: Request, *, client: str, serial: int, timeout: float) -> Answer:
        """See :class:`raftbed.clients.Connection`."""
        answer: Answer = await Suspend(
            lambda resume: self._begin(
                self._attempt(node, request, client, serial, timeout),
                lambda answer: self.loop.timeline.after(0, resume, answer),
            )
        )
        return answer

    async def _attempt(self, node: str, request: Request, client: str, serial: int, timeout: float) -> Answer:
        patience = timeout
        for owner in self._meets(self.haste, node):
            self.met[owner] += 1
            patience = min(timeout, max(_LEAST_PATIENCE, self._draw() * self._draw() * _MOST_HASTE))
        asking = self._open[node].attempt(
            node, request, client=client, serial=serial, timeout=timeout, patience=patience
        )
        for owner in self._meets(self.impatience, node):
            self.met[owner] += 1
            try:
                async with asyncio.timeout(self._draw() * self._draw() * _MOST_PATIENCE):
                    return await asking
            except TimeoutError:
                return Answer("lost", code="hung-up", message=f"the client did not wait for {node}")
        return await asking

    def _meets(self, habits: Mapping[str, tuple[list[str], float]], node: str) -> list[str]:
        """The owners of habits that an attempt at this node is to have."""
        return [owner for owner, (nodes, share) in habits.items() if node in nodes and self._draw() < share]

    def _begin(self, coroutine: Coroutine[Any, Any, Any], then: Callable[[Any], object]) -> None:
        task = self.loop.create_task(coroutine)
        self._running[task] = None

        def done(task: asyncio.Task[Any]) -> None:
            del self._running[task]
            then(task.result())

        task.add_done_callback(done)

    # -- operators ----------------------------------------------------------------------------------------------------

    def ask(self, node: Node, event: Event) -> None:
        """Have a node do what the event asks for; the event's token hears of the end."""
        token: Any = event.token  # type: ignore[union-attr]  # these have one
        path: str
        body: dict[str, Any]
        match event:
            case Initialize(_, members):
                path, body, tries = "/admin/initialize", {"members": list(members)}, _TRIES
            case ChangeMembership(_, members):
                path, body, tries = "/admin/change_membership", {"members": list(members)}, 1
            case TransferLeadership(_, target):
                path, body, tries = "/admin/transfer", {"target": target}, 1
            case _:
                raise AssertionError(f"operators do not ask for {event!r}")
        self._begin(self._post(node.name, path, body, tries), lambda told: token.answer(node, told))

    async def _post(self, node: str, path: str, body: dict[str, Any], tries: int) -> Any:
        """What the node answers, or the exception that says why there is no good answer."""
        while True:
            tries -= 1
            try:
                async with self._sessions[node].post(
                    f"http://{self._addresses[node]}{path}",
                    json=body,
                    timeout=aiohttp.ClientTimeout(total=_OPERATOR_TIMEOUT),
                ) as response:
                    content = msgspec.json.decode(await response.read())
            except aiohttp.ClientConnectorError as error:
                if not tries:
                    return error
                await asyncio.sleep(_TRY_AGAIN)
                continue
            except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
                return error
            if response.status == 200:
                return content
            return Noop() if content.get("error") == "no-change" else RuntimeError(content.get("error"))
