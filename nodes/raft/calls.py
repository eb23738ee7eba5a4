"""Requests on their way to peers: they cost neither a task nor a timer of their own, and come back as events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from raftbed.nodes.raft.events import Answered, Event, Failed, Send
from raftbed.nodes.raft.interfaces import RaftNetwork
from raftbed.nodes.raft.messages import NodeId
from raftbed.nodes.raft.peer_failures import ANSWERS, PeerFailures


class Calls:
    """Sends requests, and sees to it that each comes to an end.

    Parameters:
        network: carries them.
        patience: seconds that one may take.
        failures: logs what the network does wrong.
        push: takes the event at the end of each.
    """

    def __init__(
        self, network: RaftNetwork, patience: float, failures: PeerFailures, push: Callable[[Event], None]
    ) -> None:
        self._network = network
        self._patience = patience
        self._failures = failures
        self._push = push
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[asyncio.Future[Any], float] = {}  # to when each is given up; in order
        self._timer: asyncio.TimerHandle | None = None

    def send(self, message: Send) -> None:
        """Send a request."""
        method: Callable[[NodeId, Any], Awaitable[Any]] = getattr(self._network, message.method)
        try:
            call = asyncio.ensure_future(method(message.to, message.request))
        except Exception as error:  # a network may fail in any way it likes; the core only needs to know that it did
            self._failures.raised(message, error)
            self._push(Failed(message))
            return
        self._under_way[call] = self._loop.time() + self._patience
        call.add_done_callback(lambda call: self._came_back(message, call))
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience, self._give_up)

    def _came_back(self, message: Send, call: asyncio.Future[Any]) -> None:
        self._under_way.pop(call, None)
        if call.cancelled():
            self._push(Failed(message))
        elif (error := call.exception()) is not None:
            self._failures.raised(message, error)
            self._push(Failed(message))
        elif isinstance(answer := call.result(), ANSWERS[message.method]):
            self._push(Answered(message, answer))
        else:
            self._failures.answered(message, answer)
            self._push(Failed(message))

    def _give_up(self) -> None:
        """Cancel those that have had no answer for too long; one timer, set to the oldest, does it for all."""
        self._timer = None
        now = self._loop.time()
        for call, until in list(self._under_way.items()):
            if until > now:
                self._timer = self._loop.call_later(until - now, self._give_up)
                break
            del self._under_way[call]
            call.cancel()

    def end(self) -> None:
        """Cancel all of them."""
        if self._timer is not None:
            self._timer.cancel()
        for call in list(self._under_way):
            call.cancel()
