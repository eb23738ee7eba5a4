"""Every message between nodes, for the message diagram of the report: when it left, when it arrived, what it said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raftbed.nodes.raft.events import Send
from raftbed.nodes.raft.messages import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    TimeoutNowRequest,
    TimeoutNowResponse,
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

    # -- of cores -----------------------------------------------------------------------------------------------------

    def sent(self, now: int, sender: str, message: Send) -> None:
        """A request leaves."""
        self._requests[message] = self.request(now, sender, message.to, message.method, message.request)

    def answered(self, now: int, message: Send, sender: str, response: Any) -> None:
        """A peer's answer leaves for `sender`."""
        self._answers[message] = self.answer(now, message.to, sender, message.method, message.request, response)

    def arrived(self, now: int, node: str, message: Send) -> None:
        """A request arrives at a peer, or an answer at its sender."""
        found = (self._requests if node == message.to else self._answers).get(message)
        if found is not None and found["arrived"] is None:
            found["arrived"] = now

    # -- of anyone ----------------------------------------------------------------------------------------------------

    def request(self, now: int, source: str, target: str, method: str, request: Any) -> dict[str, Any]:
        """Note a request; returns the record, in which "arrived" is to be set once it does."""
        routine = isinstance(request, AppendEntriesRequest) and not request.entries
        return self.note(now, source, target, method, describe(method, request), answer=False, routine=routine)

    def answer(self, now: int, source: str, target: str, method: str, request: Any, response: Any) -> dict[str, Any]:
        """Note the answer of `source` to a request of `target`; None: the connection was reset. Returns the record."""
        routine, text = False, describe(method, response)
        if isinstance(request, AppendEntriesRequest) and isinstance(response, AppendEntriesResponse):
            routine = response.success and not request.entries
            if response.is_keep_alive and response.term == request.term:
                routine, text = True, f"hears, while its disk works, term {response.term}"
        return self.note(now, source, target, method, text, answer=True, routine=routine)

    def note(
        self, now: int, source: str, target: str, method: str, text: str, *, answer: bool, routine: bool = False
    ) -> dict[str, Any]:
        """Note whatever `source` says to `target`; returns the record."""
        record = {
            "time": now,
            "arrived": None,
            "from": source,
            "to": target,
            "method": method,
            "answer": answer,
            "routine": routine,
            "text": text,
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


def _took(_method: str, said: InstallSnapshotResponse) -> str:
    took = "holds all of the snapshot" if said.installed else f"wants the snapshot from byte {said.next_offset}"
    return f"{took}, term {said.term}"


def _stand(_method: str, said: TimeoutNowRequest) -> str:
    return f"stand for election at once, term {said.term}"


def _will_stand(_method: str, said: TimeoutNowResponse) -> str:
    return f"has heard that it is to stand, term {said.term}"


_WORDS: Mapping[type, Callable[[str, Any], str]] = {
    AppendEntriesRequest: _append,
    AppendEntriesResponse: _appended,
    VoteRequest: _asks,
    VoteResponse: _voted,
    InstallSnapshotRequest: _piece,
    InstallSnapshotResponse: _took,
    TimeoutNowRequest: _stand,
    TimeoutNowResponse: _will_stand,
}
