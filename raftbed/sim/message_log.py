"""Every message between nodes, for the message diagram of the report: when it left, when it arrived, what it said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raftbed.nodes.raft.events import Send
from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    VoteRequest,
    VoteResponse,
)

_ASKS = {"vote": "asks for a vote", "pre_vote": "asks for the promise of a vote"}


class MessageLog:
    """Collects messages; a request and its answer are two.

    Attributes:
        messages: each with "time" (it left), "arrived" (None: never), "from", "to", "method", "answer", "routine"
            (a heartbeat, or that it was heard) and "text".
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._requests: dict[Send, dict[str, Any]] = {}
        self._answers: dict[Send, dict[str, Any]] = {}

    def sent(self, now: int, sender: str, message: Send) -> None:
        """A request leaves."""
        routine = isinstance(message.request, AppendEntriesRequest) and not message.request.entries
        self._requests[message] = self._note(now, sender, message.to, message, False, routine, message.request)

    def answered(self, now: int, message: Send, sender: str, response: Any) -> None:
        """A peer's answer leaves for `sender`."""
        request = message.request
        routine, text = False, None
        if isinstance(request, AppendEntriesRequest) and isinstance(response, AppendEntriesResponse):
            routine = response.success and not request.entries
            if response.is_keep_alive and response.term == request.term:
                routine, text = True, f"hears, while its disk works, term {response.term}"
        self._answers[message] = note = self._note(now, message.to, sender, message, True, routine, response)
        note["text"] = text or note["text"]

    def arrived(self, now: int, node: str, message: Send) -> None:
        """A request arrives at a peer, or an answer at its sender."""
        found = (self._requests if node == message.to else self._answers).get(message)
        if found is not None and found["arrived"] is None:
            found["arrived"] = now

    def _note(
        self, now: int, source: str, target: str, message: Send, answer: bool, routine: bool, content: Any
    ) -> dict[str, Any]:
        record = {
            "time": now,
            "arrived": None,
            "from": source,
            "to": target,
            "method": message.method,
            "answer": answer,
            "routine": routine,
            "text": describe(message.method, content),
        }
        self.messages.append(record)
        return record


def describe(method: str, content: Any) -> str:
    """What a request or an answer says, in a few words."""
    words = _WORDS.get(type(content))
    if words is not None:
        return words(method, content)
    return f"{method}: connection reset" if content is None else f"{method}: {type(content).__name__}"


def _append(_method: str, said: AppendEntriesRequest) -> str:
    if not said.entries:
        what = "heartbeat"
    elif len(said.entries) == 1:
        what = f"entry {said.entries[0].index}"
    else:
        what = f"entries {said.entries[0].index} to {said.entries[-1].index}"
    return f"{what} after {said.prev_log_index}, term {said.term}, committed {said.leader_commit}"


def _appended(_method: str, said: AppendEntriesResponse) -> str:
    if said.success:
        return f"holds up to {said.verified_index}, term {said.term}"
    if said.conflict is not None:
        return f"disagrees, look at {said.conflict.index}, term {said.term}"
    return f"refuses, term {said.term}"


def _asks(method: str, said: VoteRequest) -> str:
    return f"{_ASKS.get(method, method)} in term {said.term}, log ends at {said.last_log_index} of {said.last_log_term}"


def _voted(_method: str, said: VoteResponse) -> str:
    return f"{'grants' if said.vote_granted else 'refuses'}, term {said.term}"


def _piece(_method: str, said: InstallSnapshotRequest) -> str:
    return f"snapshot up to {said.snapshot.index}, from byte {said.offset}, term {said.term}"


_WORDS: Mapping[type, Callable[[str, Any], str]] = {
    AppendEntriesRequest: _append,
    AppendEntriesResponse: _appended,
    VoteRequest: _asks,
    VoteResponse: _voted,
    InstallSnapshotRequest: _piece,
}
