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
    reached = _majority_value(membership.members, value)
    after = membership.members_after_consensus
    return reached if after is None else min(reached, _majority_value(after, value))


def _majority_value(voters: tuple[NodeId, ...], value: Callable[[NodeId], int]) -> int:
    if not voters:
        return 0
    values = sorted(map(value, voters))
    return values[len(values) - majority(len(values))]
