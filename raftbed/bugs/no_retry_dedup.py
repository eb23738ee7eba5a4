"""A command that comes twice is executed twice."""

from __future__ import annotations

import sys

from raftbed.bugs import Bug, replace, run_planted
from raftbed.nodes.state_machine import Result, Sessions


def lookup(self: Sessions, client: str, serial: int) -> Result | None:
    """Remember nothing."""
    return None


def plant() -> None:
    """Make the mistake."""
    replace(Sessions, "lookup", lookup)


BUG = Bug(
    name="no-retry-dedup",
    mistake="a retried command is applied a second time",
    breaks="exactly-once, seen as linearizability",
    seen_in="khepri #250",
    test="partition-test",
    faults="a leader whose answers are lost after its entries were replicated",
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
