"""What a leader knows of one peer's log (Raft paper, figure 2: nextIndex, matchIndex; etcd's tracker.Progress)."""

from __future__ import annotations

from dataclasses import dataclass, field

from raftbed.nodes.raft.events import Send


@dataclass(slots=True)
class Progress:
    """A replication stream.

    Attributes:
        next_index: the first entry to send next.
        match_index: the last entry that the peer is known to hold, durably. Starts at 0: nothing is known.
        probing: where the logs agree is not known: one message at a time. Otherwise messages are pipelined.
        unreachable: the last message got no answer: only heartbeats are sent, without entries.
        inflight: messages with entries on their way.
        beats: messages without entries on their way.
        last_contact: when the message was sent that was answered last, in nanoseconds.
        acked_round: the latest round of read confirmations that it acknowledged.
    """

    next_index: int
    last_contact: int
    match_index: int = 0
    probing: bool = True
    unreachable: bool = False
    inflight: set[Send] = field(default_factory=set)
    beats: set[Send] = field(default_factory=set)
    acked_round: int = 0

    def agreed(self, index: int) -> None:
        """The peer's log is known to hold everything up to `index`."""
        self.match_index = max(self.match_index, index)
        self.next_index = max(self.next_index, self.match_index + 1)
        self.probing = False

    def probe_from(self, index: int) -> None:
        """Look for agreement from `index` on; what is in flight is not counted on any more."""
        self.next_index = max(self.match_index + 1, index)
        self.probing = True
        self.inflight.clear()
