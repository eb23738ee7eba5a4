"""A restarted node takes everything that was committed before for applied, and applies none of it."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.raft.core import Core


def plant() -> None:
    """Make the mistake."""
    start, advance_commit = Core.start, Core.advance_commit
    recovered: dict[int, int] = {}  # id of a core to the last entry that it found on disk

    def start_and_note(self: Core) -> None:
        recovered[id(self)] = self.log.last_index
        start(self)

    def advance_past_what_was_recovered(self: Core, index: int) -> None:
        last = recovered.pop(id(self), 0) if index > self.commit_index else 0
        if last:
            # The entries are in the log, so they must have been applied: the state machine, which is not on disk,
            # begins empty.
            self.commit_index = self.last_applied = min(index, last)
        advance_commit(self, index)

    replace(Core, "start", start_and_note)
    replace(Core, "advance_commit", advance_past_what_was_recovered)


BUG = Bug(
    name="restart-applies-wrong",
    mistake="after a restart the applied index is set to the commit index, although nothing was applied",
    breaks="state machine safety, seen as linearizability",
    seen_in="horizontal-scaling-convex #145",
    test="crash-test",
    faults="a node that restarts and later leads",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
