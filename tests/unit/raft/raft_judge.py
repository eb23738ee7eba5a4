"""What every story of the harness must keep: the properties of figure 3 of the Raft paper."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from raftbed.nodes.raft import Entry
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Trace


@dataclass
class Invariants:
    """The Raft paper's figure 3, asserted on every step."""

    leaders: dict[int, str] = field(default_factory=dict)  # election safety
    prefixes: dict[tuple[int, int], str] = field(default_factory=dict)  # log matching
    applied: dict[int, Entry] = field(default_factory=dict)  # state machine safety
    votes: dict[tuple[str, int], str] = field(default_factory=dict)
    snapshots: dict[int, str] = field(default_factory=dict)  # index of a snapshot or a commit to the prefix's hash
    committed: tuple[int, int, str] = (0, 0, "0000000000000000")  # index, term of the commit, hash; leader completeness

    def see(self, core: Core, trace: Trace) -> None:
        term = trace.fields["term"]
        if trace.event == "role" and trace.fields["role"] == "leader":
            assert self.leaders.setdefault(term, core.id) == core.id, f"two leaders in term {term}"
            index, committed_in, digest = self.committed
            if committed_in < term:
                assert core.log.last_index >= index, f"leader of term {term} lacks committed entry {index}"
                assert core.log.prefix_hash(index) in (digest, ""), f"leader of term {term} differs at {index}"
        elif trace.event == "append":
            places = range(trace.fields["first"], trace.fields["last"] + 1)
            for place in zip(places, trace.fields["terms"], trace.fields["hashes"], strict=True):
                assert self.prefixes.setdefault(place[:2], place[2]) == place[2], f"logs differ at {place[:2]}"
        elif trace.event == "vote":
            candidate = trace.fields["candidate"]
            assert self.votes.setdefault((core.id, term), candidate) == candidate, f"{core.id} voted twice in {term}"
        elif trace.event == "snapshot":
            place = (trace.fields["index"], trace.fields["hash"])
            assert self.snapshots.setdefault(*place) == place[1], f"snapshots differ at {place}"
        elif trace.event == "commit":
            place = (trace.fields["index"], trace.fields["hash"])
            assert self.snapshots.setdefault(*place) == place[1], f"commits differ at {place}"
            if place[0] > self.committed[0]:
                self.committed = (place[0], term, place[1])

    def see_applied(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            assert self.applied.setdefault(entry.index, entry) == entry, f"two entries applied at {entry.index}"
