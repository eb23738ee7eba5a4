"""The sessions are not in the snapshot: who starts from it does a command again that was done before."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
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
        # A leader goes dark with writes whose answers are outstanding; the next one commits them, takes a snapshot, and
        # is restarted before the clients have given up waiting, and ask again.
        story=Story(
            (
                Beat("slow-disk", "all", (0.0, 0.0), (0.35, 0.35), {"factor": 20}),
                Beat("power", "leader", (0.2, 0.3), (1.8, 1.8)),
                Beat("kill", "all", (0.85, 0.95), (0.05, 0.05)),
            ),
            every=2.6,
        ),
        node_options={"snapshot_policy": 1, "trailing_logs": 0, "replication_lag_threshold": 1},
        nodes=3,
        settings={"time_limit": 6.0, "rate": 200.0, "concurrency": 12},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
