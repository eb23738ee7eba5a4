"""What nodes send, compared with what they have reason to send; and the bound on how long a simulation goes on.

Theory of operation
-------------------
A node has reason to send a message to each of its peers for every heartbeat, every request of a client that comes in
(a read may ask all peers to confirm the leadership), and every entry that it appends (which each of them is to have),
and a few for elections. Losses and conflicts make it say some of that again. Whatever happens, a correct Raft stays
within a small multiple; nodes that answer each other's answers for ever, without anything to carry, send hundreds of
times as much, as fast as the network lets them: a message storm. Pieces of snapshots are not looked at: their number is
that of the bytes.

The same measure bounds a simulation: one that takes many times more events than there was reason for is cut off, so
that no seed takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raftbed.nodes.raft import Config
from raftbed.nodes.raft.events import Send

_SECOND_MILLISECONDS = 1000
_ELECTIONS = 20  # in a second: each timeout asks all peers, for a promise and for a vote


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in multiples of what nodes had reason to send.

    Attributes:
        storm: a node that sends more than so many times that in one virtual second has begun a message storm.
        events_besides: events that a simulation may take in any case.
        events: and so many for each message that there was reason to send.
    """

    storm: int = 10
    events_besides: int = 80_000
    events: int = 3


@dataclass(frozen=True, slots=True)
class Busy:
    """One node's messages in one virtual second.

    Attributes:
        node: who.
        sent: messages with entries, heartbeats, and requests for votes, to all peers together.
        reasons: how many of them it had reason to send, at most.
    """

    node: str
    sent: int
    reasons: int


class Traffic:
    """Counts what nodes send, second by second.

    Parameters:
        nodes: their names.
        config: of their Raft.
        limits: what is too much.

    Attributes:
        busiest: the second in which a node sent the most for what it had reason to.
        events: that the simulation may take until the present second is over.
    """

    def __init__(self, nodes: Sequence[str], config: Config, limits: Limits) -> None:
        self._peers = max(len(nodes) - 1, 1)
        self._always = _SECOND_MILLISECONDS // config.heartbeat_interval + 1 + _ELECTIONS
        self._limits = limits
        self._sent = dict.fromkeys(nodes, 0)
        self._appended = dict.fromkeys(nodes, 0)
        self._appended_before = dict.fromkeys(nodes, 0)
        self._requests = self._requests_before = 0
        self.busiest = Busy("", 0, 1)
        self.events = limits.events_besides

    def sent(self, node: str, message: Send) -> None:
        """A node sends a message."""
        if message.method != "install_snapshot":
            self._sent[node] += 1

    def appended(self, node: str, fields: Mapping[str, Any]) -> None:
        """A node appended entries, as its trace says."""
        self._appended[node] += fields["last"] - fields["first"] + 1

    def events_with_present_second(self, requests: int) -> int:
        """`events`, and those that there was reason for in the second that is under way.

        Parameters:
            requests: that clients have sent so far.
        """
        lately = requests - self._requests
        messages = self._peers * sum(lately + appended for appended in self._appended.values())
        return self.events + self._limits.events * messages

    def second_over(self, requests: int) -> Iterator[Busy]:
        """A virtual second is over, or the simulation is.

        Parameters:
            requests: that clients have sent so far.

        Returns:
            the nodes that have begun a message storm.
        """
        lately = requests - self._requests_before  # in this second and the one before, which it may still work off
        for node, sent in self._sent.items():
            appended = self._appended[node]
            reasons = self._peers * (self._always + lately + appended + self._appended_before[node])
            self.events += self._limits.events * self._peers * (self._always + requests - self._requests + appended)
            if sent * self.busiest.reasons > self.busiest.sent * reasons:
                self.busiest = Busy(node, sent, reasons)
            if sent > self._limits.storm * reasons:
                yield Busy(node, sent, reasons)
            self._sent[node], self._appended[node], self._appended_before[node] = 0, 0, appended
        self._requests_before, self._requests = self._requests, requests
