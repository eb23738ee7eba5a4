"""Installing a snapshot drops the entries after it, although they follow it and were acknowledged."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.messages import SnapshotMeta


def plant() -> None:
    """Make the mistake."""
    install_rightly = Core.install

    def install(self: Core, snapshot: SnapshotMeta) -> None:
        if snapshot.index < self.log.last_index:
            self.truncate_log(snapshot.index + 1)
        install_rightly(self, snapshot)

    replace(Core, "install", install)


BUG = Bug(
    name="snapshot-drops-newer-suffix",
    mistake="installing a snapshot drops the entries after it, although they follow it",
    breaks="leader completeness",
    seen_in="camunda #6092",
    test="crash-test",
    faults="a snapshot that arrives late, at a node that has more and, having restarted, does not know that",
    simulation=Scenario(
        # Answers of one follower come just in time, or a little later: the leader sends it a snapshot while
        # entries that it will count are on their way, of which the follower has not heard that they are committed. The
        # other follower's disk is slow, so that it lacks them; and then the leader is lost.
        story=Story(
            (
                Beat("delay", "followers-minority", (0.0, 0.0), (0.8, 1.2), {"least_ms": 60, "most_ms": 76}),
                Beat("slow-disk", "followers-minority", (0.0, 0.0), (0.8, 1.2), {"factor": 100}, backwards=True),
                Beat("kill", "leader", (0.5, 0.8), (0.8, 0.8)),
            ),
            every=1.8,
        ),
        node_options={
            "snapshot_policy": 2,
            "trailing_logs": 50,
            "replication_lag_threshold": 1,
            "snapshot_max_chunk_size": 1 << 20,
        },
        nodes=3,
        settings={"time_limit": 8.0, "rate": 120.0, "concurrency": 30},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
