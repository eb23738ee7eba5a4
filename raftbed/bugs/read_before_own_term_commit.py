"""A new leader serves reads before it knows what is committed."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.state import Leadership


def own_term_committed(self: Core, leadership: Leadership) -> bool:
    """Take the commit index for granted."""
    return True


def plant() -> None:
    """Make the mistake."""
    replace(Core, "own_term_committed", own_term_committed)


BUG = Bug(
    name="read-before-own-term-commit",
    mistake="a leader serves reads before an entry of its own term is committed",
    breaks="linearizability",
    seen_in="etcd #7331",
    test="crash-test",
    faults="a leader that is lost, and a read that comes just after the election of the next",
    simulation=Scenario(
        # Messages take a while. The leader is no longer heard, but hears: it acknowledges what it had sent before, and
        # cannot tell anybody. One of the others has a slow disk: the next leader's first entry waits for it, while
        # it answers heartbeats, so that reads are confirmed.
        story=Story(
            (
                Beat("delay", "all", (0.0, 0.0), (1.6, 1.6), {"least_ms": 15, "most_ms": 20}),
                Beat("slow-disk", "followers-minority", (0.0, 0.0), (1.6, 1.6), {"factor": 150}),
                Beat("partition", "leader-mute", (0.4, 0.6), (1.2, 1.2)),
            ),
            every=2.2,
        ),
        nodes=3,
        settings={"time_limit": 7.0, "rate": 300.0, "concurrency": 30},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
