"""What a node answers when it does not do what it was asked: a code, a sentence, and whether that is definite.

`definite` is the word that clients live by: true means that the operation certainly did not happen and will not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from raftbed.nodes.raft import (
    ChangeConfigError,
    ConfigChangeAbandoned,
    ConfigChangeInProgress,
    ConfigChangeUnknown,
    InitializeNotAllowed,
    InoperableConfig,
    LeadershipLost,
    NodeNotLeader,
    Noop,
    Overloaded,
    ReadForwardToLeader,
    ReadOverloaded,
    ShuttingDown,
    SnapshotError,
    TransferError,
    TransferNotLeader,
    TransferTimedOut,
    WriteForwardToLeader,
)


@dataclass(eq=False)
class Problem(Exception):
    """An answer other than success.

    Attributes:
        status: of HTTP.
        code: short and stable, for programs.
        message: one sentence, for people.
        definite: the operation certainly did not happen and will not.
        leader: who leads, where that helps.
        extra: further fields of the answer.
    """

    status: int
    code: str
    message: str
    definite: bool = True
    leader: str | None = None
    extra: tuple[tuple[str, Any], ...] = ()


def bad_request(message: str) -> Problem:
    """The request is malformed."""
    return Problem(400, "bad-request", message)


def not_leader(node: str, leader: str | None, *, is_read: bool) -> Problem:
    """This node does not lead, or could not prove it; nothing was done."""
    if leader is not None and leader != node:
        return Problem(421, "not-leader", f"{node} is not the leader; {leader} is.", leader=leader)
    if is_read and leader == node:
        return Problem(503, "read-not-confirmed", f"{node} could not prove that it still leads.")
    return Problem(503, "no-leader", f"{node} is not the leader and knows of none.")


def of_write(node: str, error: Exception) -> Problem | None:
    """What to answer when a write ended in `error`; None for an error that is not a write's."""
    if isinstance(error, WriteForwardToLeader):
        return not_leader(node, error.leader, is_read=False)
    if isinstance(error, LeadershipLost):
        return leadership_lost(node)
    if isinstance(error, Overloaded):
        return Problem(503, "overloaded", f"{node} has too much to commit: {error}. Try again later.")
    if isinstance(error, ShuttingDown):
        return Problem(503, "shutting-down", f"{node} shut down before it could tell.", definite=False)
    if isinstance(error, TimeoutError):
        return Problem(504, "timeout", f"{node} had no answer in time; the write may still happen.", definite=False)
    return None


def leadership_lost(node: str) -> Problem:
    """The write was appended, then its leader was deposed: it may still be committed."""
    return Problem(503, "leadership-lost", f"{node} was deposed; the write may or may not happen.", definite=False)


def stale_serial(client: str | None, serial: int | None) -> Problem:
    """The session has answered a later command: this one is not executed now, and may have been before."""
    message = f"The session {client} has gone on beyond serial {serial}: it is not executed now, but may have been."
    return Problem(409, "stale-serial", message, definite=False)


def session_expired(client: str | None) -> Problem:
    """Nobody remembers the session: the command is not executed now, and may have been before."""
    message = f"The session {client} has expired, or never was; begin one with POST /sessions."
    return Problem(409, "session-expired", message, definite=False)


def of_read(node: str, error: Exception) -> Problem | None:
    """What to answer when a read ended in `error`; reads have no effect, so all of it is definite."""
    if isinstance(error, ReadForwardToLeader):
        return not_leader(node, error.leader, is_read=True)
    if isinstance(error, ReadOverloaded):
        return Problem(503, "overloaded", f"{node} has too much to confirm: {error}. Try again later.")
    if isinstance(error, ShuttingDown):
        return Problem(503, "shutting-down", f"{node} is shutting down.")
    if isinstance(error, TimeoutError):
        return Problem(503, "read-not-confirmed", f"{node} could not prove in time that it still leads.")
    return None


def of_initialize(node: str, error: Exception) -> Problem | None:
    """What to answer when an initialization ended in `error`."""
    if isinstance(error, InitializeNotAllowed):
        return Problem(409, "not-allowed", f"{node} cannot be initialized: {error}.")
    if isinstance(error, ShuttingDown):
        return Problem(503, "shutting-down", f"{node} is shutting down.")
    return None


_CHANGES = {
    ConfigChangeAbandoned: (409, "change-abandoned"),
    ConfigChangeInProgress: (409, "change-in-progress"),
    InoperableConfig: (400, "inoperable-config"),
    Noop: (409, "no-change"),
}


def of_change(node: str, error: Exception, unreached: Mapping[str, str] = MappingProxyType({})) -> Problem | None:
    """What to answer when a change of the membership ended in `error`; `unreached`: for whom it waits, and why."""
    if isinstance(error, NodeNotLeader):
        return not_leader(node, error.leader, is_read=False)
    if isinstance(error, ConfigChangeUnknown):
        return Problem(503, "leadership-lost", f"{node}: {error}; it may still happen.", definite=False)
    if isinstance(error, ChangeConfigError):
        status, code = _CHANGES[type(error)]
        return Problem(status, code, f"Nothing was changed: {error}.")
    if isinstance(error, TimeoutError):
        why = "".join(f" {other} cannot be reached: {reason.rstrip('.')}." for other, reason in unreached.items())
        return Problem(504, "timeout", f"{node} is not done yet; the change goes on.{why}", definite=False)
    if isinstance(error, ShuttingDown):
        return Problem(503, "shutting-down", f"{node} shut down before it could tell.", definite=False)
    return None


def of_transfer(node: str, error: Exception) -> Problem | None:
    """What to answer when a leadership was not handed over, because of `error`."""
    if isinstance(error, TransferNotLeader):
        return not_leader(node, error.leader, is_read=False)
    if isinstance(error, TransferTimedOut | TimeoutError):
        return Problem(504, "timeout", f"{node} leads on: {error}.", definite=False)
    if isinstance(error, TransferError):
        return Problem(409, "refused", f"{node} leads on: {error}.")
    if isinstance(error, ShuttingDown):
        return Problem(503, "shutting-down", f"{node} is shutting down.", definite=False)
    return None


def of_snapshot(node: str, error: Exception) -> Problem | None:
    """What to answer when no snapshot was taken, because of `error`."""
    if isinstance(error, SnapshotError):
        return Problem(409, "no-snapshot", f"{node} took no snapshot: {error}.")
    if isinstance(error, ShuttingDown):
        return Problem(503, "shutting-down", f"{node} is shutting down.")
    if isinstance(error, TimeoutError):
        return Problem(504, "timeout", f"{node} is not done yet; the snapshot goes on.", definite=False)
    return None
