"""Installing a snapshot drops the entries after it, although they follow it and were acknowledged."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, Scenario, replace, run_planted
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
        faults=("kill", "pause", "delay", "clog", "duplicate", "loss", "moment"),
        node_options={
            "snapshot_policy": 10,
            "trailing_logs": 1,
            "replication_lag_threshold": 2,
            "snapshot_max_chunk_size": 1 << 20,
        },
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
