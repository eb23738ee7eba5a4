"""The network of whole nodes and their clients: who listens where, how connections are made, what links do to them."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from raftbed.sim.message_log import MessageLog
from raftbed.sim.network import Link, Network
from raftbed.sim.shell.endpoint import Endpoint
from raftbed.sim.shell.loop import VirtualLoop
from raftbed.sim.shell.wiretap import Wiretap
from raftbed.sim.timeline import Timeline

CLIENTS = "clients"
"""The machine that clients and operators are on."""
_MILLISECOND = 1_000_000
_RETRANSMIT = (200 * _MILLISECOND, 1600 * _MILLISECOND)  # least and most time after which TCP tries again
_CONNECT_AGAIN = 1000 * _MILLISECOND  # after which it tries to connect again, doubled each time
_CLOGGED_AGAIN = 20 * _MILLISECOND
_TRIES = 12

Factory = Callable[[], asyncio.Protocol]
if TYPE_CHECKING:
    _Server = Any  # as for `raftbed.sim.shell.loop`
else:
    _Server = asyncio.AbstractServer


class Listener(_Server):  # type: ignore[misc]  # see there
    """Takes connections for a process.

    Parameters:
        network: from which.
        loop: of the process.
        factory: of protocols.
        port: that it listens on.
    """

    def __init__(self, network: Streams, loop: VirtualLoop, factory: Factory, port: int) -> None:
        self._network = network
        self._loop = loop
        self._factory = factory
        self.port = port
        self.sockets = (_Socket(loop.place, port),)

    @property
    def loop(self) -> VirtualLoop:
        """Of the process."""
        return self._loop

    def accept(self, endpoint: Endpoint) -> None:
        """A connection was made; the process hears of it when it has time."""
        self._loop.call_soon(lambda: endpoint.begin(self._factory()))

    def close(self) -> None:
        """See `asyncio`."""
        self._network.stop_listening(self)

    def is_serving(self) -> bool:
        """See `asyncio`."""
        return self._network.listener(self._loop.place) is self

    async def wait_closed(self) -> None:
        """See `asyncio`."""


class _Socket:
    """As much of a socket as a server is asked for."""

    def __init__(self, place: str, port: int) -> None:
        self._name = (place, port)

    def getsockname(self) -> tuple[str, int]:
        """Its address."""
        return self._name


class Streams(Network):
    """The network of the nodes and their clients; implements `raftbed.sim.shell.loop.Connector`.

    Parameters:
        timeline: when things arrive.
        nodes: the names of the nodes' machines.
        seed: of everything random here.
        messages: takes what nodes say to each other, if anyone wants to know.

    Attributes:
        resets: owner to how many ends of connections it has reset so far.
    """

    def __init__(self, timeline: Timeline, nodes: Sequence[str], seed: int, messages: MessageLog | None = None) -> None:
        super().__init__(timeline, nodes, seed)
        self.timeline = timeline
        self._seed = seed
        self._messages = messages
        self._dark: dict[str, None] = {}
        self._listeners: dict[str, Listener] = {}
        self._client_links: dict[tuple[str, str], Link] = {}
        self._endpoints: dict[str, dict[Endpoint, None]] = {}
        self._made = 0  # connections
        self.resets: dict[str, int] = {}

    # -- Connector ----------------------------------------------------------------------------------------------------

    def listen(self, loop: VirtualLoop, factory: Factory, port: int) -> Listener:
        """See `Connector`."""
        if loop.place in self._listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._listeners[loop.place] = Listener(self, loop, factory, port)
        return self._listeners[loop.place]

    async def connect(self, loop: VirtualLoop, address: str, factory: Factory) -> tuple[Endpoint, asyncio.Protocol]:
        """See `Connector`."""
        attempt = _Attempt(self, loop, address.rpartition(":")[0])
        attempt.try_(0)
        try:
            endpoint = await attempt.made
        except asyncio.CancelledError:
            attempt.give_up()
            raise
        protocol = factory()
        ready = loop.create_future()
        endpoint.begin(protocol, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        except asyncio.CancelledError:
            endpoint.close()
            raise
        return endpoint, protocol

    def pair(self, loop: VirtualLoop, listener: Listener) -> Endpoint:
        """A new connection between two processes; returns the end of the one that asked for it."""
        self._made += 1
        here, there = loop.place, listener.loop.place
        random = Random(f"{self._seed}:connection:{self._made}")
        near = Endpoint(self, loop, here, self.way(here, there), random)
        far = Endpoint(self, listener.loop, there, self.way(there, here), random)
        near.peer, far.peer = far, near
        if self._messages is not None and CLIENTS not in (here, there):
            wiretap = Wiretap(self._messages, self.timeline, here, there)
            near.tap, far.tap = wiretap.requests, wiretap.answers
        self._endpoints.setdefault(here, {})[near] = None
        self._endpoints.setdefault(there, {})[far] = None
        listener.accept(far)
        return near

    # -- machines and processes ---------------------------------------------------------------------------------------

    def listener(self, place: str) -> Listener | None:
        """Who takes connections there."""
        return self._listeners.get(place)

    def stop_listening(self, listener: Listener) -> None:
        """Take no more."""
        if self._listeners.get(listener.loop.place) is listener:
            del self._listeners[listener.loop.place]

    def process_gone(self, place: str) -> None:
        """The process there has ended: the kernel closes its connections."""
        self._listeners.pop(place, None)
        for endpoint in list(self._endpoints.get(place, ())):
            endpoint.leave()

    def power(self, place: str, on: bool) -> None:
        """The machine there has power, or none."""
        if on:
            self._dark.pop(place, None)
            return
        self._dark[place] = None
        self._listeners.pop(place, None)
        for endpoint in list(self._endpoints.pop(place, ())):
            endpoint.vanish()

    def is_dark(self, place: str) -> bool:
        """Nobody answers there."""
        return place in self._dark

    def connections(self, place: str) -> list[Endpoint]:
        """The ends there."""
        return list(self._endpoints.get(place, ()))

    def forget(self, endpoint: Endpoint) -> None:
        """This end is over."""
        self._endpoints.get(endpoint.place, {}).pop(endpoint, None)

    # -- links --------------------------------------------------------------------------------------------------------

    def way(self, source: str, target: str) -> Link:
        """The link from one machine to another."""
        if CLIENTS not in (source, target):
            return self.link(source, target)
        if (source, target) not in self._client_links:
            self._client_links[source, target] = Link(Random(f"{self._seed}:link:{source}:{target}"))
        return self._client_links[source, target]

    def is_blocked(self, link: Link) -> bool:
        """Nothing gets through at present; TCP will try again."""
        if not link.troubled or not (link.cut or link.clogged):
            return False
        for owner in (*link.cut, *link.clogged):
            link.meet(owner)
        return True

    def again(self, link: Link, tries: int) -> int:
        """Nanoseconds until TCP tries again."""
        if not link.cut and link.clogged:
            return _CLOGGED_AGAIN
        least, most = _RETRANSMIT
        return int(min(least << min(tries, 8), most) * (0.9 + 0.2 * link.random.random()))

    def time(self, link: Link) -> int:
        """Nanoseconds that a piece takes; one that is lost on the way takes longer."""
        self.carried += 1
        time = link.time()
        if not link.troubled:
            return time
        draw = link.random.random
        for owner, share in link.loss.items():
            tries = 0
            while draw() < share and tries < _TRIES:
                link.meet(owner)
                time += self.again(link, tries)
                tries += 1
        for owner, (least, most, share) in link.delay.items():
            if share < 1 and draw() >= share:
                continue
            link.meet(owner)
            time += least + int(draw() * (most - least))
        for owner, share in link.duplication.items():
            if draw() < share:
                link.meet(owner)  # and the other end's TCP throws it away
        return time


class _Attempt:
    """An attempt to connect.

    Parameters:
        network: over which.
        loop: of the process that asks.
        target: the machine.

    Attributes:
        made: brings the near end, or fails.
    """

    def __init__(self, network: Streams, loop: VirtualLoop, target: str) -> None:
        self._network = network
        self._loop = loop
        self._target = target
        self._out = network.way(loop.place, target)
        self._back = network.way(target, loop.place)
        self._given_up = False
        self._answered = False
        self.made: asyncio.Future[Endpoint] = loop.create_future()

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._given_up = True
        if self.made.done() and not self.made.cancelled() and self.made.exception() is None:
            self.made.result().close()

    def try_(self, tries: int) -> None:
        """Knock."""
        if self._given_up or self._answered or self._loop.gone:
            return
        timeline = self._network.timeline
        timeline.after(_CONNECT_AGAIN << tries, self.try_, tries + 1)
        if not self._network.is_blocked(self._out):
            timeline.after(self._network.time(self._out), self._knocked)

    def _knocked(self) -> None:
        network = self._network
        if self._given_up or self._answered or self._loop.gone:
            return
        if network.is_dark(self._target) or network.is_blocked(self._back):
            return
        self._answered = True
        listener = network.listener(self._target)
        endpoint = network.pair(self._loop, listener) if listener is not None else None
        network.timeline.after(network.time(self._back), self._heard, endpoint)

    def _heard(self, endpoint: Endpoint | None) -> None:
        if self._given_up or self._loop.gone:
            if endpoint is not None:
                endpoint.leave()
            return
        self._loop.call_soon(self._settle, endpoint)

    def _settle(self, endpoint: Endpoint | None) -> None:
        if self.made.done():
            if endpoint is not None:
                endpoint.close()
        elif endpoint is not None:
            self.made.set_result(endpoint)
        else:
            error = f"Connect call failed ('{self._target}')"
            self.made.set_exception(ConnectionRefusedError(errno.ECONNREFUSED, error))
