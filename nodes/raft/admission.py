"""How much clients may ask of a node that its core has not taken yet.

Ordinarily the core takes what comes in within the same turn of the event loop, and has bounds of its own. But while the
disk works nearly everything waits for it, and a disk may hang for as long as it likes: clients give up, and ask again,
and what they asked before still waits. Without a bound it would fill the memory of the node. What peers say is never
refused here: they wait for an answer before they say more.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftbed.nodes.raft.config import Config
from raftbed.nodes.raft.errors import Overloaded, ReadOverloaded
from raftbed.nodes.raft.events import ClientRead, ClientWrite, Event


class Admission:
    """Counts what clients asked and the core has not taken, and refuses more than the core would hold.

    Parameters:
        config: its bounds for what is not committed, and for reads, hold here, too.
    """

    def __init__(self, config: Config) -> None:
        self._most_writes, self._most_bytes = config.max_uncommitted_entries, config.max_uncommitted_bytes
        self._most_reads = config.max_waiting_reads
        self._writes = self._bytes = self._reads = 0

    def write(self, size: int) -> None:
        """Let in a write of so many bytes.

        Raises:
            Overloaded: as much as there may be waits already.
        """
        if self._writes >= self._most_writes or self._bytes >= self._most_bytes:
            raise Overloaded(f"{self._writes} writes wait for the disk, and were not even looked at")
        self._writes += 1
        self._bytes += size

    def read(self) -> None:
        """Let in a read.

        Raises:
            ReadOverloaded: as many as there may be wait already.
        """
        if self._reads >= self._most_reads:
            raise ReadOverloaded(f"{self._reads} reads wait for the disk, and were not even looked at")
        self._reads += 1

    def recount(self, waiting: Sequence[Event]) -> None:
        """The core has taken what there was, but for `waiting`."""
        self._writes = self._bytes = self._reads = 0
        for event in waiting:
            if isinstance(event, ClientWrite):
                self._writes += 1
                self._bytes += event.size
            elif isinstance(event, ClientRead):
                self._reads += 1
