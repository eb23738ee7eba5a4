"""A read is served though the state machine is behind."""

from __future__ import annotations

import sys
from weakref import WeakKeyDictionary

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Apply, Persist, Ready
from raftbed.nodes.raft.state import Leadership

LAG = 50_000_000
"""Nanoseconds by which the state machine is behind the log."""


def applied_far_enough(self: Core, leadership: Leadership) -> bool:
    """Never mind."""
    return True


def plant() -> None:
    """Make the mistake."""
    next_ready = Core.take_ready
    behind: WeakKeyDictionary[Core, list[tuple[int, Apply]]] = (
        WeakKeyDictionary()
    )  # what it will apply, and from when on

    def take_ready(self: Core, persist: Persist | None) -> Ready | None:
        whole = next_ready(self, persist)
        waiting = behind.setdefault(self, [])
        if whole is None and not (waiting and waiting[0][0] <= self.now):
            return None
        effects = list(whole.effects) if whole is not None else []
        waiting += [(self.now + LAG, effect) for effect in effects if isinstance(effect, Apply)]
        due = [apply for when, apply in waiting if when <= self.now]
        del waiting[: len(due)]
        answers = [effect for effect in effects if not isinstance(effect, Apply)]
        whole = whole or Ready(independent=True)
        return Ready(whole.early, whole.persist, (*due, *answers), whole.traces, whole.independent)

    replace(Core, "applied_far_enough", applied_far_enough)
    replace(Core, "take_ready", take_ready)


BUG = Bug(
    name="read-before-applied",
    mistake="a read is served before the state machine has reached the read index",
    breaks="linearizability",
    seen_in="openraft #965",
    test="crash-test",
    faults="a new leader whose state machine is behind its log",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
