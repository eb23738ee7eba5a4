"""The replicated key-value map, and the sessions that make retried writes happen once.

A command is a mapping: ``{"op": "put", "key": K, "value": V}`` or ``{"op": "cas", "key": K, "old": A, "new": B}``, with
``"client"`` and ``"serial"`` where the client wants it done exactly once (Raft thesis 6.3). Everything here is
deterministic: all nodes apply the same commands in the same order and come to the same state and the same answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """What the state machine answered to a command.

    Attributes:
        outcome: "done"; "precondition-failed" (a compare-and-set that found something else); "stale-serial" (the
            session has answered a later command already: this one is not executed).
        value: what the key holds after the command.
    """

    outcome: str
    value: Any


class Sessions:
    """The last answer to each client, by which a command that comes twice is done once."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, Result]] = {}

    def lookup(self, client: str, serial: int) -> Result | None:
        """The answer to a command that was done before; None for one that has to be done now."""
        serial_before, result = self._last.get(client, (0, None))
        if serial > serial_before:
            return None
        if serial == serial_before:
            return result
        return Result("stale-serial", None)

    def remember(self, client: str, serial: int, result: Result) -> None:
        """Keep the answer for when the command comes again."""
        self._last[client] = (serial, result)


class KeyValueStateMachine:
    """A map from strings to JSON values."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self.sessions = Sessions()

    def read(self, key: str) -> Any:
        """The value of a key; None where it has none."""
        return self._values.get(key)

    def apply(self, command: Mapping[str, Any]) -> Result:
        """Do one command, or answer again what it was answered."""
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


def same_value(left: Any, right: Any) -> bool:
    """Equality as JSON has it: true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    return bool(left == right)
