"""A follower acknowledges entries before it has synced them."""

from __future__ import annotations

import sys
from weakref import WeakKeyDictionary

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
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
        return Ready(whole.early, None, acks, whole.traces, independent=True)

    replace(Core, "ready", ready)


BUG = Bug(
    name="ack-before-fsync",
    mistake="a follower acknowledges entries before they are synced",
    breaks="durability",
    seen_in="tikv #994",
    test="crash-test",
    faults="power loss, or a kill, of a follower in that moment, and the loss of the leader",
    simulation=Scenario(
        # One follower is away, the other's disk is slow: what it has acknowledged is on the leader only.
        story=Story(
            (
                Beat("kill", "followers-minority", (0.0, 0.1), (1.0, 1.1), backwards=True),
                Beat("slow-disk", "followers-minority", (0.1, 0.2), (0.8, 0.9), {"factor": 80}),
                Beat("power", "leader", (0.9, 0.9), (1.2, 1.2)),
                Beat("power", "followers-minority", (0.9, 0.9), (0.1, 0.1)),
            ),
            every=2.6,
        ),
        nodes=3,
        settings={"time_limit": 6.0},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
