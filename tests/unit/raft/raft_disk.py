"""The disk of a core in the harness."""

from __future__ import annotations

from dataclasses import dataclass, field

from raftbed.nodes.raft import Entry, HardState
from raftbed.nodes.raft.events import Persist
from raftbed.nodes.raft.messages import BEGINNING, LogBase, SnapshotMeta


@dataclass
class Disk:
    """What survives a crash."""

    hard_state: HardState = field(default_factory=HardState)
    entries: list[Entry] = field(default_factory=list)
    base: LogBase = BEGINNING
    snapshot: SnapshotMeta | None = None
    data: bytes = b""  # of the snapshot
    received: dict[str, bytes] = field(default_factory=dict)  # does not survive

    def write(self, persist: Persist) -> None:
        if persist.install is not None:
            self.snapshot, self.data = persist.install, self.received[persist.install.id]
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
        if persist.truncate_from is not None:
            assert persist.truncate_from > self.base.index
            del self.entries[persist.truncate_from - self.base.index - 1 :]
        if persist.compact_to is not None:
            assert self.snapshot is not None and self.snapshot.index >= persist.compact_to.index > self.base.index
            del self.entries[: persist.compact_to.index - self.base.index]
            self.base = persist.compact_to
        for entry in persist.entries:
            assert entry.index == self.base.index + len(self.entries) + 1, "a gap on disk"
            self.entries.append(entry)

    def recover(self) -> None:
        """As `NodeStorage` does: a log that does not lead to the snapshot is begun anew after it."""
        self.received = {}
        if self.snapshot is not None:
            place = self.snapshot.index - self.base.index
            terms = [self.base.term, *(entry.term for entry in self.entries)]
            if place >= len(terms) or terms[place] != self.snapshot.term:
                self.entries, self.base = [], self.snapshot.base()
