"""A new leader serves reads before it knows what is committed."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
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
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
