"""Durable and in-memory stores of a node."""

from __future__ import annotations

from pathlib import Path

from raftbed.nodes.storage.base import CorruptRecord, InitialState, LogStore, SnapshotStore, StorageError
from raftbed.nodes.storage.log_store import DiskLogStore
from raftbed.nodes.storage.memory import MemorySnapshots, MemoryStore
from raftbed.nodes.storage.node_storage import NodeStorage, StateMachine
from raftbed.nodes.storage.snapshot_store import DiskSnapshots


def open_storage(data: Path, machine: StateMachine, *, shares_commands: bool = False) -> NodeStorage:
    """The storage of an ordinary node: log and snapshots on disk below `data`, and `machine` (see `NodeStorage`)."""
    return NodeStorage(DiskLogStore(data), machine, DiskSnapshots(data / "snapshots"), shares_commands=shares_commands)


__all__ = [
    "CorruptRecord",
    "DiskLogStore",
    "DiskSnapshots",
    "InitialState",
    "LogStore",
    "MemorySnapshots",
    "MemoryStore",
    "NodeStorage",
    "SnapshotStore",
    "StateMachine",
    "StorageError",
    "open_storage",
]
