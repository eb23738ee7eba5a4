"""Whatever follows the entries of a message is cut off, though it does not contradict them."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
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
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
