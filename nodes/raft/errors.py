"""The errors of :class:`raftbed.nodes.raft.Raft`, after async-raft 0.6.1.

::

    ConfigError                          a configuration contradicts itself
    RaftError                            the node cannot do anything for anyone
    ├── RaftStorageError                 its storage failed; the node shuts down
    ├── LogContradiction                 a leader contradicts what is committed; the node shuts down
    ├── RaftNetworkError                 a peer could not be reached
    └── ShuttingDown                     it is being, or has been, shut down
    ClientReadError
    └── ReadForwardToLeader              this node does not lead, or could not prove that it does; has no effect
    ClientWriteError
    ├── WriteForwardToLeader             this node does not lead; carries the payload back: it was not appended
    ├── Overloaded                       too much is uncommitted; it was not appended
    └── LeadershipLost                   appended, and then the leader was deposed: nobody knows what becomes of it
    InitializeError
    └── InitializeNotAllowed             the node is not pristine
"""

from __future__ import annotations

from typing import Any


class ConfigError(ValueError):
    """A configuration contradicts itself; the message names the field."""


class RaftError(Exception):
    """The node cannot do anything for anyone."""


class RaftStorageError(RaftError):
    """The node's storage failed; the node shuts down."""


class LogContradiction(RaftError):
    """A leader contradicts an entry that is committed: some node lost what it had promised to keep."""


class RaftNetworkError(RaftError):
    """A peer could not be reached, or did not answer in time."""


class ShuttingDown(RaftError):
    """The node is being, or has been, shut down."""

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
