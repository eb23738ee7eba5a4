"""What an application's network does wrong goes to the log here: the core only learns that there was no answer."""

from __future__ import annotations

import logging
import re
import reprlib
from typing import Any

from raftbed.nodes.raft.errors import RaftNetworkError, ShuttingDown, in_words, was_foreseen
from raftbed.nodes.raft.events import Method, Send
from raftbed.nodes.raft.messages import (
    AppendEntriesResponse,
    InstallSnapshotResponse,
    NodeId,
    TimeoutNowResponse,
    VoteResponse,
)

ANSWERS: dict[Method, type[Any]] = {
    "append_entries": AppendEntriesResponse,
    "vote": VoteResponse,
    "pre_vote": VoteResponse,
    "install_snapshot": InstallSnapshotResponse,
    "timeout_now": TimeoutNowResponse,
}
"""What each method of a network brings back."""

_ORDINARY = (OSError, RaftNetworkError, ShuttingDown)  # a peer is away: a network reports that itself, as it sees fit
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")
_log = logging.getLogger("raftbed.nodes")


class PeerFailures:
    """Logs failures that look like a mistake, once for each peer, and again when the reason changes.

    Parameters:
        node: whose network it is.
    """

    def __init__(self, node: NodeId) -> None:
        self._node = node
        self._said: dict[NodeId, str] = {}

    def raised(self, message: Send, error: BaseException) -> bool:
        """Instead of an answer there was `error`; tells whether that is more than the loss of a connection."""
        if isinstance(error, _ORDINARY):
            return False
        self._say(message, in_words(error), error)
        return True

    def answered(self, message: Send, answer: object) -> None:
        """What was brought as the answer to `message` is none."""
        self._say(message, f"its answer is no {ANSWERS[message.method].__name__}, but {reprlib.repr(answer)}", None)

    def unread(self, message: Send, error: Exception) -> None:
        """The piece of a snapshot that `message` was to carry could not be read."""
        self._say(message, f"the snapshot cannot be read: {in_words(error)}", None if was_foreseen(error) else error)

    def _say(self, message: Send, reason: str, error: BaseException | None) -> None:
        kind = _NUMBER.sub("N", reason)  # another port or address makes no other reason, which would fill the log
        if self._said.get(message.to) != kind:
            self._said[message.to] = kind
            text = "node %s: %s to %s failed: %s (said once, until the reason changes)"
            _log.warning(text, self._node, message.method, message.to, reason, exc_info=error)
