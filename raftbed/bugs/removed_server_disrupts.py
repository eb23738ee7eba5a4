"""No PreVote, and voters do not protect a live leader: a server that was removed deposes one after the other."""

from __future__ import annotations

import sys

from raftbed.bugs import Beat, Bug, Scenario, Story, replace, run_planted
from raftbed.nodes.raft.core import Core


def heard_from_leader(self: Core) -> bool:
    """Never mind."""
    return False


def plant() -> None:
    """Make the mistake."""
    replace(Core, "heard_from_leader", heard_from_leader)


BUG = Bug(
    name="removed-server-disrupts",
    mistake="without PreVote, voters adopt the term of anybody who stands, though their leader lives",
    breaks="liveness",
    seen_in="Raft thesis, 4.2.3",
    test="partition-test",
    faults="servers that were removed, and have not heard of it",
    node_options={"pre_vote": False},
    simulation=Scenario(
        # A server is removed while it is cut off: it cannot hear of that, and stands for election ever after.
        story=Story(
            (
                Beat("partition", "one", (0.0, 0.0), (0.6, 1.0)),
                Beat("membership", "one", (0.1, 0.1), (0.3, 0.3), {"for_good": 1}),
            )
        ),
        settings={"time_limit": 3.0, "recovery_timeout": 5.0},
    ),
    plant=plant,
)

if __name__ == "__main__":
    sys.exit(run_planted(BUG))
