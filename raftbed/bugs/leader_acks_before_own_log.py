"""A leader counts itself, and answers, before its own log is synced."""

from __future__ import annotations

import sys
from weakref import WeakKeyDictionary

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Ready, Token
from raftbed.nodes.raft.messages import NodeId


def plant() -> None:
    """Make the mistake."""
    acknowledged_index, write_requested, next_ready = Core.acknowledged_index, Core.write_requested, Core.ready
    later: WeakKeyDictionary[Core, Ready] = WeakKeyDictionary()  # what it writes after its answers

    def acknowledged_index_of_memory(self: Core, node: NodeId) -> int:
        return self.log.last_index if node == self.id else acknowledged_index(self, node)

    def write_and_commit(self: Core, token: Token, data: object, given: object) -> None:
        write_requested(self, token, data, given)
        if self.leadership is not None:
            self.advance_commit_as_leader()

    def ready(self: Core) -> Ready | None:
        if self in later:
            return later.pop(self)
        whole = next_ready(self)
        if whole is None or whole.persist is None or whole.persist.hard_state is not None or self.leadership is None:
            return whole
        later[self] = Ready((), whole.persist)
        return Ready(whole.early, None, whole.effects, whole.traces, independent=True)

    replace(Core, "acknowledged_index", acknowledged_index_of_memory)
    replace(Core, "write_requested", write_and_commit)
    replace(Core, "ready", ready)


BUG = Bug(
    name="leader-acks-before-own-log",
    mistake="a leader counts itself, and answers, before its own log is synced",
    breaks="durability",
    seen_in="etcd #14370",
    test="crash-test",
    faults="a kill, or power loss, of a leader that is alone",
    nodes=1,
    simulation=Scenario(
        story=Story(
            (Beat("moment", "power-at-append", (0.0, 0.2), (0.2, 0.2), {"chance": 1.0, "lasting_ms": 50}),), every=0.5
        ),
        settings={"time_limit": 4.0, "rate": 200.0, "keys": 2},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
