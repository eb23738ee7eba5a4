"""Durable and in-memory stores of a node."""

from __future__ import annotations

from pathlib import Path

from raftbed.nodes.storage.base import CorruptRecord, InitialState, LogStore, StorageError
from raftbed.nodes.storage.log_store import DiskLogStore
from raftbed.nodes.storage.memory import MemoryStore
from raftbed.nodes.storage.node_storage import NodeStorage, StateMachine


def open_storage(data: Path, machine: StateMachine) -> NodeStorage:
    """The storage of an ordinary node: a log on disk below `data`, and `machine`."""
    return NodeStorage(DiskLogStore(data), machine)


__all__ = [
    "CorruptRecord",
    "DiskLogStore",
    "InitialState",
    "LogStore",
    "MemoryStore",
    "NodeStorage",
    "StateMachine",
    "StorageError",
    "open_storage",
]
