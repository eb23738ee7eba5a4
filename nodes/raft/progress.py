"""What a leader knows of one peer's log (Raft paper, figure 2: nextIndex, matchIndex; etcd's tracker.Progress)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from raftbed.nodes.raft.events import Send
from raftbed.nodes.raft.messages import SnapshotMeta

NEVER = -(1 << 62)
"""Before any time that a clock shows."""


class Stream(StrEnum):
    """How a peer is sent entries."""

    PROBE = "probe"  # where the logs agree is not known: one message at a time
    REPLICATE = "replicate"  # messages are pipelined
    SNAPSHOT = "snapshot"  # the peer lacks entries that the log does not have any more: it is sent the snapshot


@dataclass(slots=True)
class Progress:
    """A replication stream.

    Attributes:
        next_index: the first entry to send next.
        match_index: the last entry that the peer is known to hold, durably. Starts at 0: nothing is known.
        stream: how it is sent entries.
        unreachable: the last message got no answer that says something of its log: only heartbeats are sent, without
            entries. A peer whose disk works on and on may say that it hears (keep_alive.py), but takes none.
        inflight: messages with entries on their way, with their bytes.
        inflight_bytes: of all of them.
        beats: messages without entries on their way.
        last_contact: when the message was sent that was answered last, in nanoseconds; at first, now.
        last_reply: likewise, of answers that say something of its log; at first, never.
        acked_at: likewise; at first, never.
        acked_round: the latest round of read confirmations that it acknowledged.
        leaving: the membership does not name it any more; it is still told so.
        snapshot: that it is being sent.
        offset: of the next piece of it.
        sending: the piece that is on its way.
        paused: the peer was busy: the piece is sent again after the next heartbeat.
    """

    next_index: int
    last_contact: int
    match_index: int = 0
    stream: Stream = Stream.PROBE
    unreachable: bool = False
    inflight: dict[Send, int] = field(default_factory=dict)
    inflight_bytes: int = 0
    beats: set[Send] = field(default_factory=set)
    last_reply: int = NEVER
    acked_at: int = NEVER
    acked_round: int = 0
    leaving: bool = False
    snapshot: SnapshotMeta | None = None
    offset: int = 0
    sending: Send | None = None
    paused: bool = False

    @property
    def probing(self) -> bool:
        """Where the logs agree is not known."""
        return self.stream is not Stream.REPLICATE

    def sent(self, message: Send, size: int) -> None:
        """Entries are on their way."""
        self.inflight[message] = size
        self.inflight_bytes += size

    def settled(self, message: Send) -> None:
        """A message was answered, or never will be."""
        self.inflight_bytes -= self.inflight.pop(message, 0)
        self.beats.discard(message)
        if self.sending is message:
            self.sending = None

    def answered(self, message: Send) -> None:
        """The peer answered: it followed this leader when the message was sent, or later."""
        if message.at > self.last_contact:
            self.last_contact = message.at
        if message.at > self.acked_at:
            self.acked_at = message.at
        if message.round > self.acked_round:
            self.acked_round = message.round

    def replied(self, message: Send) -> None:
        """The peer answered something of its log: it takes entries."""
        self.unreachable = False
        if message.at > self.last_reply:
            self.last_reply = message.at

    def agreed(self, index: int) -> None:
        """The peer's log is known to hold everything up to `index`."""
        if index > self.match_index:
            self.match_index = index
        if self.next_index <= self.match_index:
            self.next_index = self.match_index + 1
        if self.stream is Stream.PROBE:
            self.stream = Stream.REPLICATE

    def probe_from(self, index: int) -> None:
        """Look for agreement from `index` on; what is in flight is not counted on any more."""
        self.next_index = max(self.match_index + 1, index)
        self.inflight.clear()
        self.inflight_bytes = 0
        if self.stream is not Stream.SNAPSHOT:
            self.stream = Stream.PROBE

    def lost(self) -> None:
        """A message was lost: nothing of what is in flight may have arrived.

        A stream that probes stays where it looks: for a peer that never answered, there is nothing to go back to.
        """
        self.probe_from(self.match_index + 1 if self.stream is Stream.REPLICATE else self.next_index)

    def begin_snapshot(self, snapshot: SnapshotMeta) -> None:
        """Send the peer a snapshot, from its beginning."""
        self.probe_from(self.match_index + 1)
        self.stream = Stream.SNAPSHOT
        self.snapshot, self.offset, self.sending, self.paused = snapshot, 0, None, False

    def end_snapshot(self, index: int) -> None:
        """The peer holds everything up to `index`: go on with entries."""
        self.snapshot, self.sending, self.paused = None, None, False
        self.stream = Stream.PROBE
        self.next_index = self.match_index + 1
        self.agreed(index)

    def rate(self, last_index: int, line: int) -> Rate:
        """How the stream does, in async-raft's words; at line rate it is at most `line` entries behind."""
        if self.stream is Stream.SNAPSHOT:
            return Rate.SNAPSHOTTING
        if self.stream is Stream.REPLICATE and not self.unreachable and last_index - self.match_index <= line:
            return Rate.LINE_RATE
        return Rate.LAGGING


class Rate(StrEnum):
    """How a replication stream does."""

    LINE_RATE = "line-rate"
    LAGGING = "lagging"
    SNAPSHOTTING = "snapshotting"
