"""Whatever follows the entries of a message is cut off, though it does not contradict them."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.messages import AppendEntriesRequest


def store_entries(self: Core, request: AppendEntriesRequest) -> None:
    """Cut the log off at the first entry, and append; only what is committed stays."""
    first = max(request.prev_log_index, self.commit_index) + 1
    entries = [entry for entry in request.entries if entry.index >= first]
    if not request.entries:
        return
    before = self.membership
    if first <= self.log.last_index:
        self.truncate_log(first)
    for entry in entries:
        self.append_entry(entry)
    if entries:
        self.trace_append(first)
    if self.membership != before:
        self.become_follower(self.term, self.leader_id)


def plant() -> None:
    """Make the mistake."""
    replace(Core, "store_entries", store_entries)


BUG = Bug(
    name="truncate-matching-suffix",
    mistake="a delayed message makes a follower cut off entries that match",
    breaks="leader completeness",
    seen_in="openraft 9540c904",
    test="partition-test",
    faults="messages that overtake each other, then the loss of the leader",
    simulation=Scenario(
        # Messages come twice and overtake each other, and one follower's disk is slow, so that the other's copy counts.
        # It cuts that copy off again, not knowing yet that it is committed; and then the leader is lost.
        story=Story(
            (
                Beat("delay", "all", (0.0, 0.0), (0.9, 0.9), {"least_ms": 0, "most_ms": 40, "share": 0.5}),
                Beat("duplicate", "all", (0.0, 0.0), (0.9, 0.9), {"share": 0.7}),
                Beat("slow-disk", "followers-minority", (0.0, 0.0), (0.9, 0.9), {"factor": 200}),
                Beat("kill", "leader", (0.1, 0.4), (1.2, 1.2)),
            ),
            every=2.0,
        ),
        nodes=3,
        settings={"time_limit": 5.0, "rate": 200.0, "concurrency": 12},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
