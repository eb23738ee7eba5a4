"""The logs of several nodes as one, in the order of their times. Pure.

A node's own lines stay in the order in which it wrote them, whatever their times say: a clock that was set back does
not turn a story around. Lines without a time (a traceback, say) belong to the line before them.
"""

from __future__ import annotations

import heapq
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[,.](\d{3}) ")
_ZONE: Final = re.compile(r"([+-])(\d\d)(\d\d)")


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a node's log.

    Attributes:
        node: whose.
        time: seconds since the epoch, never before that of the node's line before it.
        text: as the node wrote it.
    """

    node: str
    time: float
    text: str


class LogReader:
    """Gives the lines of one node's log their times.

    Parameters:
        node: whose.
        zone: of the times in it, as `date +%z` prints it: "+0100".
    """

    def __init__(self, node: str, zone: str = "+0000") -> None:
        self._node = node
        self._zone = _zone(zone)
        self._last = 0.0

    def read(self, text: str) -> LogLine:
        """The next line."""
        found = _TIME.match(text)
        if found:
            try:
                moment = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=self._zone)
                self._last = max(self._last, moment.timestamp() + int(found[2]) / 1000)
            except ValueError:
                pass  # it looks like a time, and is none
        return LogLine(self._node, self._last, text)


def _zone(text: str) -> timezone:
    found = _ZONE.fullmatch(text.strip())
    if not found:
        return UTC
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def merge(logs: Iterable[Sequence[LogLine]]) -> Iterator[LogLine]:
    """Several logs as one; of lines of the same time, those of the log that was given first come first."""
    return heapq.merge(*logs, key=lambda line: line.time)


class Following:
    """Merges logs that go on: a line is held until nothing earlier can come, or until it has waited long enough.

    Parameters:
        nodes: whose logs, in the order in which lines of the same time are to be shown.
        patience: seconds that a line waits for earlier ones of other nodes.
    """

    def __init__(self, nodes: Sequence[str], *, patience: float) -> None:
        self._patience = patience
        self._waiting: Mapping[str, deque[tuple[float, LogLine]]] = {node: deque() for node in nodes}
        self._seen = dict.fromkeys(nodes, 0.0)  # the time of each node's latest line: it writes nothing earlier

    def add(self, line: LogLine, now: float) -> None:
        """Take a line that came at `now`, in seconds of any clock that only goes forward."""
        self._waiting[line.node].append((now, line))
        self._seen[line.node] = line.time

    def ended(self, node: str) -> None:
        """Nothing more comes of a node."""
        self._seen[node] = float("inf")

    def ready(self, now: float) -> list[LogLine]:
        """The lines that can be shown now, in order."""
        shown: list[LogLine] = []
        while heads := [queue[0] for queue in self._waiting.values() if queue]:
            line = min((line for _, line in heads), key=lambda line: line.time)
            settled = all(seen >= line.time for node, seen in self._seen.items() if node != line.node)
            # Whoever has waited long enough takes along those of an earlier time.
            if not settled and all(now - came < self._patience for came, _ in heads):
                break
            self._waiting[line.node].popleft()
            shown.append(line)
        return shown
