"""What a node takes from the machine that it runs on: clock, randomness, threads, disk. A simulator brings its own."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

from raftbed.nodes.identity import Identity, claim
from raftbed.nodes.raft import Raft, RaftStorage, Trace
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.storage_thread import StorageThread, StorageWorker
from raftbed.nodes.storage import StateMachine, open_storage
from raftbed.nodes.trace import TraceFile


class TraceSink(Protocol):
    """Takes the node's trace."""

    def __call__(self, traces: Sequence[Trace]) -> None:
        """Keep these, in order, before anything of the same round leaves the node."""
        ...

    def close(self, *, whole: bool = True) -> None:
        """No more will come; `whole`: everything was traced that left this node."""
        ...


class Surroundings:
    """The real ones: this process, its disk, its clock."""

    clock: Callable[[], int] = staticmethod(time.monotonic_ns)
    """Nanoseconds; monotonic."""

    core: Callable[..., Core] = staticmethod(Core)
    """Makes the core of the node's Raft, with the parameters of `Core`."""

    def random(self) -> Random:
        """What election timeouts are drawn from."""
        return Random()

    def worker(self, loop: asyncio.AbstractEventLoop, name: str) -> StorageWorker:
        """Where blocking calls of the storage are made."""
        return StorageThread(loop, name)

    def claim(self, data: Path, identity: Identity) -> None:
        """See to it that the directory is that node's, before anything is done with it.

        Raises:
            StorageError: it is another's.
        """
        claim(data, identity)

    def storage(self, data: Path, machine: StateMachine) -> RaftStorage:
        """The node's storage below the directory `data`."""
        return open_storage(data, machine, shares_commands=True)

    def trace(self, path: Path, node: str) -> TraceSink:
        """The trace of the node with that id.

        Raises:
            OSError: it cannot be written.
        """
        return TraceFile(path, node)

    def listens(self, raft: Raft) -> None:
        """The node has been set up, and takes requests."""
        gc.collect()
        gc.freeze()  # what was loaded stays: the collector need not look at it again and again
