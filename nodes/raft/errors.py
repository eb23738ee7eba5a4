"""The errors of :class:`raftbed.nodes.raft.Raft`, after async-raft 0.6.1.

::

    ConfigError                          a configuration contradicts itself
    RaftError                            the node cannot do anything for anyone
    ├── RaftStorageError                 its storage or state machine failed; the node shuts down
    ├── LogContradiction                 a leader contradicts what is committed; the node shuts down
    ├── RaftNetworkError                 a peer could not be reached
    └── ShuttingDown                     it is being, or has been, shut down; the cause says why, if by a failure
    ClientReadError
    ├── ReadForwardToLeader              this node does not lead, or could not prove that it does; has no effect
    └── ReadOverloaded                   too many reads wait for a confirmation
    ClientWriteError
    ├── WriteForwardToLeader             this node does not lead; carries the payload back: it was not appended
    ├── Overloaded                       too much is uncommitted; it was not appended
    └── LeadershipLost                   appended, and then the leader was deposed: nobody knows what becomes of it
    InitializeError
    └── InitializeNotAllowed             the node is not pristine
    ChangeConfigError
    ├── ConfigChangeInProgress           one change at a time
    ├── InoperableConfig                 a cluster without voters could never do anything again
    ├── NodeNotLeader                    only the leader changes the membership
    ├── Noop                             the membership is like that already
    ├── ConfigChangeAbandoned            taken back by an operator before the voters were changed
    └── ConfigChangeUnknown              begun, and then the leader was deposed: nobody knows what becomes of it
    TransferError
    ├── TransferNotLeader                only the leader can hand over its leadership
    ├── TransferRefused                  the target cannot lead, or another transfer is under way
    └── TransferTimedOut                 the target did not take over in time; this node leads on
    SnapshotError                        no snapshot was taken
"""

from __future__ import annotations

from typing import Any


class ConfigError(ValueError):
    """A configuration contradicts itself; the message names the field."""


class RaftError(Exception):
    """The node cannot do anything for anyone."""


class RaftStorageError(RaftError):
    """The node's storage, or its state machine, failed; the node shuts down. `__cause__` is what was raised there.

    A storage may raise this, or an error derived from it, for what it foresees: then the text stands in the log as it
    is, and without a traceback.
    """


class LogContradiction(RaftError):
    """A leader contradicts an entry that is committed: some node lost what it had promised to keep."""


class RaftNetworkError(RaftError):
    """A peer could not be reached, or did not answer in time."""


class ShuttingDown(RaftError):
    """The node is being, or has been, shut down. Where that was by a failure, `__cause__` is the failure."""

    def __init__(self, message: str = "The node is shutting down.") -> None:
        super().__init__(message)


class ClientReadError(Exception):
    """A read could not be served."""


class ReadForwardToLeader(ClientReadError):
    """This node does not lead, or could not prove that it does.

    Parameters:
        leader: who does, as far as this node knows.
    """

    def __init__(self, leader: str | None) -> None:
        super().__init__(f"not the leader; the leader is {leader or 'not known'}")
        self.leader = leader


class ReadOverloaded(ClientReadError):
    """Too many reads wait for a confirmation. Try again later."""


class ClientWriteError(Exception):
    """A write was not acknowledged."""


class WriteForwardToLeader(ClientWriteError):
    """This node does not lead; the write was not appended.

    Parameters:
        payload: the command, handed back.
        leader: who leads, as far as this node knows.
    """

    def __init__(self, payload: Any, leader: str | None) -> None:
        super().__init__(f"not the leader; the leader is {leader or 'not known'}")
        self.payload = payload
        self.leader = leader


class Overloaded(ClientWriteError):
    """Too many entries are uncommitted; the write was not appended. Try again later."""


class LeadershipLost(ClientWriteError):
    """The write was appended, then its leader was deposed: it may be committed by another leader, or never."""


class InitializeError(Exception):
    """The cluster could not be initialized."""


class InitializeNotAllowed(InitializeError):
    """Only a pristine node (no log, term 0, non-voter) can be initialized."""


class ChangeConfigError(Exception):
    """The membership was not changed, or nobody knows."""


class ConfigChangeInProgress(ChangeConfigError):
    """Another change of the membership is under way; this one was not begun."""

    def __init__(self, message: str = "another change of the membership is under way") -> None:
        super().__init__(message)


class InoperableConfig(ChangeConfigError):
    """The membership asked for has no voters: such a cluster could never do anything again."""

    def __init__(self, message: str = "a cluster needs at least one voter") -> None:
        super().__init__(message)


class NodeNotLeader(ChangeConfigError):
    """Only the leader changes the membership; nothing was done.

    Parameters:
        leader: who leads, as far as this node knows.
    """

    def __init__(self, leader: str | None) -> None:
        super().__init__(f"not the leader; the leader is {leader or 'not known'}")
        self.leader = leader


class Noop(ChangeConfigError):
    """The membership is like that already; nothing was done."""

    def __init__(self, message: str = "the membership is like that already") -> None:
        super().__init__(message)


class ConfigChangeUnknown(ChangeConfigError):
    """The change was begun, then the leader was deposed: its successor may complete it, or never hear of it."""


class ConfigChangeAbandoned(ChangeConfigError):
    """An operator took the change back while it waited for new nodes: the voters are what they were."""


class TransferError(Exception):
    """The leadership was not handed over."""


class TransferNotLeader(TransferError):
    """Only the leader can hand over its leadership.

    Parameters:
        leader: who leads, as far as this node knows.
    """

    def __init__(self, leader: str | None) -> None:
        super().__init__(f"not the leader; the leader is {leader or 'not known'}")
        self.leader = leader


class TransferRefused(TransferError):
    """The target cannot lead, or another transfer is under way; nothing was done."""


class TransferTimedOut(TransferError):
    """The target did not take over within an election timeout; this node leads on."""


class SnapshotError(Exception):
    """No snapshot was taken; the node goes on."""


def in_words(error: BaseException) -> str:
    """What to say of it in a sentence: of what was foreseen its text, of anything else its type, too."""
    text = str(error)
    return text if text and was_foreseen(error) else f"{type(error).__name__}: {text}".removesuffix(": ")


def because_of(cause: Exception | None, error: Exception) -> Exception:
    """`error`, with its cause, for where it is handed on and not raised."""
    error.__cause__ = cause
    return error


def was_foreseen(error: BaseException) -> bool:
    """The world failed, not a program: there is no need to see where in the program that was."""
    return isinstance(error, (OSError, RaftError))
