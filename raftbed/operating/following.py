"""Fetching the logs of several nodes, once or as long as they go on."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Final

from raftbed.errors import HostError
from raftbed.operating.fleet import Fleet, Remote
from raftbed.operating.logs import Following, LogLine, LogReader

PATIENCE: Final = 1.0
"""Seconds that a line waits for earlier ones of other nodes."""

_TICK: Final = 0.1
_TIMEOUT: Final = 30.0

# $1: the log; $2: how many lines. The zone of its times comes first.
_READ: Final = """
[ -e "$1" ] || { echo "there is no log of a node" >&2; exit 1; }
date +%z
exec tail -n "$2" -- "$1"
"""

# The same, and whatever is written from now on, until standard input ends: nothing is left behind on the host.
_FOLLOW: Final = """
[ -e "$1" ] || { echo "there is no log of a node" >&2; exit 1; }
date +%z
tail -n "$2" -F -- "$1" 2>/dev/null &
trap 'kill $!' EXIT
cat > /dev/null
"""


def read_logs(fleet: Fleet, lines: int) -> dict[str, list[LogLine] | HostError]:
    """The last `lines` lines of each node's log."""

    def work(remote: Remote) -> list[LogLine]:
        command = ["/bin/sh", "-c", _READ, "logs", remote.path("node.log"), str(lines)]
        zone, *texts = remote.run(command, timeout=_TIMEOUT).stdout.splitlines() or [""]
        reader = LogReader(remote.name, zone)
        return [reader.read(text) for text in texts]

    return fleet.each(work)


def follow_logs(fleet: Fleet, lines: int) -> Iterator[LogLine | HostError]:
    """The last `lines` lines of each node's log and what comes, merged, and why a log came to its end.

    It ends when no log goes on; whoever has seen enough closes the fleet.
    """
    came: queue.SimpleQueue[LogLine | tuple[str, HostError | None]] = queue.SimpleQueue()

    def work(remote: Remote) -> None:
        command = ["/bin/sh", "-c", _FOLLOW, "logs", remote.path("node.log"), str(lines)]
        error: HostError | None = HostError("its log came to an end.", host=remote.name)
        try:
            texts = remote.lines(command)
            reader = LogReader(remote.name, next(texts, ""))
            for text in texts:
                came.put(reader.read(text))
        except HostError as raised:
            error = raised
        came.put((remote.name, error))

    for remote in fleet.remotes.values():
        threading.Thread(target=work, args=(remote,), daemon=True).start()
    merged = Following(list(fleet.remotes), patience=PATIENCE)
    going = set(fleet.remotes)
    while going:
        try:
            item = came.get(timeout=_TICK)
        except queue.Empty:
            item = None
        if isinstance(item, LogLine):
            merged.add(item, time.monotonic())
        elif item is not None:
            name, error = item
            going.discard(name)
            merged.ended(name)
            if error is not None:
                yield error
        yield from merged.ready(time.monotonic())
    yield from merged.ready(float("inf"))
