"""The messages that a simulated process waits to be answered; they go with the process."""

from __future__ import annotations

from typing import Any

from raftbed.nodes.raft.events import Send

_REMEMBERED = 64  # answered messages whose second answers are taken


class Calls:
    """Messages on their way, each until it is answered or given up."""

    __slots__ = ("_answered", "_pieces", "_until")

    def __init__(self) -> None:
        self._until: dict[Send, int] = {}  # when each is given up, in that order
        self._pieces: dict[Send, None] = {}  # of snapshots: who carries them says when they are given up
        self._answered: dict[Send, None] = {}  # the latest, in order

    @property
    def deadline(self) -> int | None:
        """When the first is to be given up, on the own clock; None: there is none."""
        return next(iter(self._until.values())) if self._until else None

    def begin(self, message: Send, until: int) -> None:
        """A message leaves; no earlier one is given up later."""
        self._until[message] = until

    def begin_piece(self, message: Send) -> None:
        """A piece of a snapshot leaves."""
        self._pieces[message] = None

    def give_up(self, now: int) -> list[Send]:
        """Those that have waited long enough, the oldest first."""
        late: list[Send] = []
        while self._until and (oldest := next(iter(self._until.items())))[1] <= now:
            del self._until[oldest[0]]
            late.append(oldest[0])
        return late

    def give_up_piece(self, message: Send) -> bool:
        """Give up a piece; false where it was answered, or given up before."""
        return self._pieces.pop(message, message) is None

    def is_heard(self, message: Send, response: Any) -> bool:
        """Whether anyone hears an answer, or None, a reset; what the network brings twice is taken twice."""
        if self._until.pop(message, None) is None:
            return self.give_up_piece(message) or (message in self._answered and response is not None)
        self._answered[message] = None
        if len(self._answered) > _REMEMBERED:
            del self._answered[next(iter(self._answered))]
        return True
