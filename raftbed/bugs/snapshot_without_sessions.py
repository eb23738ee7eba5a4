"""The sessions are not in the snapshot: who starts from it does a command again that was done before."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, Scenario, replace, run_planted
from raftbed.nodes.state_machine import Sessions


def copy(self: Sessions) -> Sessions:
    """What a snapshot gets: nothing."""
    return Sessions()


def plant() -> None:
    """Make the mistake."""
    replace(Sessions, "copy", copy)


BUG = Bug(
    name="snapshot-without-sessions",
    mistake="the sessions, by which retried commands are known, are not in the snapshot",
    breaks="exactly-once, seen as linearizability",
    seen_in="openraft #2096",
    test="crash-test",
    faults="a snapshot between a command and its retry, and a node that starts from it and leads",
    simulation=Scenario(
        faults=("partition", "kill", "moment", "pause"),
        node_options={"snapshot_policy": 4, "trailing_logs": 0, "replication_lag_threshold": 1},
        settings={"rate": 300.0},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
