"""What is known of a peer goes back when an older answer comes late."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.raft.progress import Progress


def plant() -> None:
    """Make the mistake."""
    agreed = Progress.agreed

    def believe_what_was_heard_last(self: Progress, index: int) -> None:
        agreed(self, index)
        self.match_index = index

    replace(Progress, "agreed", believe_what_was_heard_last)


BUG = Bug(
    name="match-not-max",
    mistake="match_index is assigned, and not raised",
    breaks="monotonic match_index, which leader completeness rests on",
    seen_in="PySyncObj #167",
    test="partition-test",
    faults="answers that overtake each other",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
