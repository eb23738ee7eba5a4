"""A new leader takes its peers to hold all that it holds itself."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, Scenario, replace, run_planted
from raftbed.nodes.raft.core import Core


def plant() -> None:
    """Make the mistake."""
    become_leader = Core.become_leader

    def become_leader_of_equals(self: Core) -> None:
        become_leader(self)
        if self.leadership is not None:
            for progress in self.leadership.progress.values():
                progress.match_index = self.log.last_index

    replace(Core, "become_leader", become_leader_of_equals)


BUG = Bug(
    name="match-starts-at-last",
    mistake="match_index begins at the last entry of the leader's own log",
    breaks="leader completeness",
    seen_in="async-raft 0.6.1",
    test="partition-test",
    faults="a leader that is lost just after its election",
    simulation=Scenario(settings={"time_limit": 3.0}),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
