"""Majorities, of one set of voters or of two at once."""

from __future__ import annotations

from collections.abc import Callable, Container

from raftbed.nodes.raft.messages import MembershipConfig, NodeId


def majority(size: int) -> int:
    """The least number of `size` voters that is more than half of them."""
    return size // 2 + 1


def is_quorum(membership: MembershipConfig, nodes: Container[NodeId]) -> bool:
    """`nodes` hold a majority of every set of voters. False where there are no voters at all."""
    return all(
        sum(voter in nodes for voter in voters) >= majority(len(voters)) for voters in membership.voter_sets()
    ) and bool(membership.members)


def quorum_value(membership: MembershipConfig, value: Callable[[NodeId], int]) -> int:
    """The greatest number that a majority of every set of voters has reached (0 where there are no voters)."""
    reached = []
    for voters in membership.voter_sets():
        values = sorted((value(voter) for voter in voters), reverse=True)
        reached.append(values[majority(len(values)) - 1] if values else 0)
    return min(reached)
