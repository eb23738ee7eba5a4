"""A follower acknowledges entries before it has synced them."""

from __future__ import annotations

import sys
from weakref import WeakKeyDictionary

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Ready, Respond
from raftbed.nodes.raft.messages import AppendEntriesResponse


def plant() -> None:
    """Make the mistake."""
    next_ready = Core.ready
    later: WeakKeyDictionary[Core, Ready] = WeakKeyDictionary()  # what it does after its acknowledgements

    def ready(self: Core) -> Ready | None:
        if self in later:
            return later.pop(self)
        whole = next_ready(self)
        if whole is None or whole.persist is None:
            return whole
        acks = tuple(
            effect
            for effect in whole.effects
            if isinstance(effect, Respond) and isinstance(effect.value, AppendEntriesResponse)
        )
        if not acks:
            return whole
        later[self] = Ready((), whole.persist, tuple(effect for effect in whole.effects if effect not in acks))
        return Ready(whole.early, None, acks, whole.traces)

    replace(Core, "ready", ready)


BUG = Bug(
    name="ack-before-fsync",
    mistake="a follower acknowledges entries before they are synced",
    breaks="durability",
    seen_in="tikv #994",
    test="crash-test",
    faults="power loss, or a kill, of a follower in that moment, and the loss of the leader",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
