"""The replicated key-value map, and the sessions that make retried writes happen once.

A command is a mapping: ``{"op": "put", "key": K, "value": V}`` or ``{"op": "cas", "key": K, "old": A, "new": B}``, with
``"client"`` and ``"serial"`` where the client wants it done exactly once (Raft thesis 6.3). Everything here is
deterministic: all nodes apply the same commands in the same order and come to the same state and the same answers.

Sessions are limited in number: the one that was not used for the longest expires, by count and not by any clock. An
expired session is an error, and never a second execution. Whether a client that is not in the table is new or expired
cannot be told by the name that it chose; so once a session has expired, new clients are taken only by ``{"op":
"register"}``, which gives them a name that was never used before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import msgspec

MAX_SESSIONS = 10_000
"""The same on all nodes of a cluster: what expires is part of the replicated state."""
_BATCH = 32  # items in a piece of a snapshot
_REGISTERED = "session-"  # begins the names that `register` gives, and no others


class Result(msgspec.Struct, frozen=True):
    """What the state machine answered to a command.

    Attributes:
        outcome: "done"; "precondition-failed" (a compare-and-set that found something else); "stale-serial" (the
            session has answered a later command already: this one is not executed); "session-expired" (nobody knows
            whether the command was done before: it is not executed).
        value: what the key holds after the command.
    """

    outcome: str
    value: Any


class Sessions:
    """The last answer to each client, by which a command that comes twice is done once.

    Parameters:
        limit: sessions at most.
    """

    def __init__(self, limit: int = MAX_SESSIONS) -> None:
        self._limit = limit
        self._last: dict[str, tuple[int, Result]] = {}  # the one that was used last comes last
        self._registered = 0
        self._expired = False  # a session has

    def register(self) -> Result:
        """Begin a session under a name that was never used before."""
        self._registered += 1
        client = f"{_REGISTERED}{self._registered}"
        self.remember(client, 0, Result("done", None))
        return Result("done", client)

    def lookup(self, client: str, serial: int) -> Result | None:
        """The answer to a command that was done before; None for one that has to be done now."""
        known = self._last.get(client)
        if known is None:
            if self._expired or client.startswith(_REGISTERED):
                return Result("session-expired", None)
            return None
        serial_before, result = known
        if serial > serial_before:
            return None
        if serial == serial_before:
            self.remember(client, serial, result)  # it is in use
            return result
        return Result("stale-serial", None)

    def remember(self, client: str, serial: int, result: Result) -> None:
        """Keep the answer for when the command comes again."""
        self._last.pop(client, None)
        self._last[client] = (serial, result)
        while len(self._last) > self._limit:
            del self._last[next(iter(self._last))]
            self._expired = True

    def copy(self) -> Sessions:
        """The table as it is now."""
        copied = Sessions(self._limit)
        copied._last = self._last.copy()
        copied._registered, copied._expired = self._registered, self._expired
        return copied

    def pieces(self) -> Iterator[bytes]:
        """The table, for a snapshot."""
        yield msgspec.msgpack.encode((self._limit, self._registered, self._expired))
        items = ((client, serial, result.outcome, result.value) for client, (serial, result) in self._last.items())
        yield from _batches(items)

    @classmethod
    def of_pieces(cls, pieces: Iterator[bytes]) -> Sessions:
        """The table that a snapshot has."""
        limit, registered, expired = msgspec.msgpack.decode(next(pieces))
        sessions = cls(limit)
        sessions._registered, sessions._expired = registered, expired
        for client, serial, outcome, value in _unbatched(pieces):
            sessions._last[client] = (serial, Result(outcome, value))
        return sessions


class KeyValueStateMachine:
    """A map from strings to JSON values. A value is never changed, only put in place of another.

    Parameters:
        max_sessions: the same on all nodes.
    """

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._values: dict[str, Any] = {}
        self.sessions = Sessions(max_sessions)

    def read(self, key: str) -> Any:
        """The value of a key; None where it has none."""
        return self._values.get(key)

    def apply(self, command: Mapping[str, Any]) -> Result:
        """Do one command, or answer again what it was answered."""
        if command["op"] == "register":
            return self.sessions.register()
        client, serial = command.get("client"), command.get("serial")
        if client is None or serial is None:
            return self.execute(command)
        earlier = self.sessions.lookup(client, serial)
        if earlier is not None:
            return earlier
        result = self.execute(command)
        self.sessions.remember(client, serial, result)
        return result

    def execute(self, command: Mapping[str, Any]) -> Result:
        """Do one command."""
        key = command["key"]
        if command["op"] == "put":
            self._values[key] = command["value"]
            return Result("done", command["value"])
        current = self._values.get(key)
        if not same_value(current, command["old"]):
            return Result("precondition-failed", current)
        self._values[key] = command["new"]
        return Result("done", command["new"])

    # -- snapshots ------------------------------------------------------------------------------------------------

    def capture(self) -> Callable[[], Iterator[bytes]]:
        """See :class:`raftbed.nodes.storage.StateMachine`: values are shared, not copied."""
        values, sessions = self._values.copy(), self.sessions.copy()

        def pieces() -> Iterator[bytes]:
            yield from sessions.pieces()
            yield from _batches(values.items())

        return pieces

    def load(self, pieces: Iterator[bytes]) -> Callable[[], None]:
        """See :class:`raftbed.nodes.storage.StateMachine`."""
        sessions = Sessions.of_pieces(pieces)
        values: dict[str, Any] = dict(_unbatched(pieces))

        def begin() -> None:
            self._values, self.sessions = values, sessions

        return begin


def _batches(items: Iterable[Any]) -> Iterator[bytes]:
    """Pieces with a few items each, and an empty one at the end."""
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield msgspec.msgpack.encode(batch)
    yield msgspec.msgpack.encode([])


def _unbatched(pieces: Iterator[bytes]) -> Iterator[Any]:
    """The items of pieces, up to and with the empty one."""
    while batch := msgspec.msgpack.decode(next(pieces)):
        yield from batch


def same_value(left: Any, right: Any) -> bool:
    """Equality as JSON has it: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    return bool(left == right)
