"""The Raft library: everything that an application needs to replicate a state machine.

An application brings a `RaftNetwork` and a `RaftStorage`, makes a `Raft`, and writes through it::

    raft = Raft("n1", Config("my-cluster"), network, storage)
    await raft.initialize({"n1", "n2", "n3"})
    answer = await raft.client_write(command)
    await raft.client_read()   # from here on, the local state machine may be read
"""

from raftbed.nodes.raft.api import ClientWriteResponse, MetricsWatch, Raft, Tracer
from raftbed.nodes.raft.config import Config
from raftbed.nodes.raft.errors import (
    ClientReadError,
    ClientWriteError,
    ConfigError,
    InitializeError,
    InitializeNotAllowed,
    LeadershipLost,
    LogContradiction,
    Overloaded,
    RaftError,
    RaftNetworkError,
    RaftStorageError,
    ReadForwardToLeader,
    ShuttingDown,
    WriteForwardToLeader,
)
from raftbed.nodes.raft.events import Trace
from raftbed.nodes.raft.interfaces import RaftNetwork, RaftStorage, StoredState
from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    Blank,
    ConfigChange,
    ConflictHint,
    Entry,
    HardState,
    MembershipConfig,
    NodeId,
    Normal,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.state import RaftMetrics, State

__all__ = [
    "AppendEntriesRequest",
    "AppendEntriesResponse",
    "Blank",
    "ClientReadError",
    "ClientWriteError",
    "ClientWriteResponse",
    "Config",
    "ConfigChange",
    "ConfigError",
    "ConflictHint",
    "Entry",
    "HardState",
    "InitializeError",
    "InitializeNotAllowed",
    "LeadershipLost",
    "LogContradiction",
    "MembershipConfig",
    "MetricsWatch",
    "NodeId",
    "Normal",
    "Overloaded",
    "Raft",
    "RaftError",
    "RaftMetrics",
    "RaftNetwork",
    "RaftNetworkError",
    "RaftStorage",
    "RaftStorageError",
    "ReadForwardToLeader",
    "ShuttingDown",
    "State",
    "StoredState",
    "Trace",
    "Tracer",
    "VoteRequest",
    "VoteResponse",
    "WriteForwardToLeader",
]
