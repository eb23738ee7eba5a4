"""The shapes of faults: who is cut off from whom, and who is killed. Pure functions over the order of the nodes.

A partition is a grudge: a map from each node to the nodes whose packets it drops (Jepsen's term). How packets are
dropped is the business of a mechanism. Shapes that aim at the leader take the first of the order for the leader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Grudge = Mapping[str, frozenset[str]]
"""Node to the nodes whose packets it drops; a node that drops none may be missing."""


def minority(count: int) -> int:
    """The greatest number of nodes that is not a quorum of `count`, and is at least 1."""
    return max(1, (count - 1) // 2)


def majority(count: int) -> int:
    """The least number of nodes that is a quorum of `count`."""
    return count // 2 + 1


def complete(*sides: Sequence[str]) -> Grudge:
    """No side hears any other."""
    everyone = [node for side in sides for node in side]
    return {node: frozenset(everyone) - frozenset(side) for side in sides for node in side}


def deaf(listeners: Sequence[str], speakers: Sequence[str]) -> Grudge:
    """`listeners` do not hear `speakers`, who hear them."""
    return {node: frozenset(speakers) - {node} for node in listeners}


def one(order: Sequence[str]) -> Grudge:
    """The first node is cut off."""
    return complete(order[:1], order[1:])


def halves(order: Sequence[str]) -> Grudge:
    """A minority on one side, a majority (or the other half) on the other."""
    return complete(order[: len(order) // 2], order[len(order) // 2 :])


def majorities_ring(order: Sequence[str]) -> Grudge:
    """Every node hears a majority, no two the same one; after Jepsen's nemesis of that name.

    The nodes stand in a circle, and each hears those next to it.
    """
    count = len(order)
    width = majority(count)
    grudge = {}
    for place, node in enumerate(order):
        first = place - width // 2
        heard = {order[(first + step) % count] for step in range(width)}
        grudge[node] = frozenset(order) - heard - {node}
    return grudge


def bridge(order: Sequence[str]) -> Grudge:
    """Two sides that do not hear each other, and a node between them that hears, and is heard by, both."""
    middle = len(order) // 2
    grudge = dict(complete(order[:middle], order[middle + 1 :]))
    grudge[order[middle]] = frozenset()
    return grudge


def one_way(order: Sequence[str]) -> Grudge:
    """A minority does not hear the others, who hear it."""
    size = minority(len(order))
    return deaf(order[:size], order[size:])


def leader_minority(order: Sequence[str]) -> Grudge:
    """The leader, with too few others for a quorum, against the rest.

    The others are the last of the order: those that `followers_minority` leaves behind are on the other side.
    """
    rest = order[1 : len(order) - minority(len(order)) + 1]
    return complete([node for node in order if node not in rest], rest)


def leader_deaf(order: Sequence[str]) -> Grudge:
    """The leader hears nobody; what it says arrives."""
    return deaf(order[:1], order[1:])


def leader_mute(order: Sequence[str]) -> Grudge:
    """Nobody hears the leader; it hears all."""
    return deaf(order[1:], order[:1])


def followers_minority(order: Sequence[str]) -> Grudge:
    """As many followers as a quorum can do without are cut off; the leader goes on."""
    size = minority(len(order))
    return complete(order[1 : 1 + size], [order[0], *order[1 + size :]])


PARTITION_SHAPES: Mapping[str, Callable[[Sequence[str]], Grudge]] = {
    "one": one,
    "halves": halves,
    "majorities-ring": majorities_ring,
    "bridge": bridge,
    "one-way": one_way,
    "leader-alone": one,
    "leader-minority": leader_minority,
    "leader-deaf": leader_deaf,
    "leader-mute": leader_mute,
    "followers-minority": followers_minority,
}

KILL_SHAPES: Mapping[str, Callable[[Sequence[str]], Sequence[str]]] = {
    "one": lambda order: order[:1],
    "minority": lambda order: order[: minority(len(order))],
    "majority": lambda order: order[: majority(len(order))],
    "all": lambda order: order,
    "leader": lambda order: order[:1],
    "followers-minority": lambda order: order[1 : 1 + minority(len(order))],
    "followers-majority": lambda order: order[1 : 1 + majority(len(order))],
}

MOMENT_SHAPES: Sequence[str] = (
    "kill-at-vote",
    "power-at-vote",
    "kill-at-append",
    "power-at-append",
    "pause-at-append",
    "kill-at-truncate",
    "power-at-truncate",
    "kill-at-lead",
    "pause-at-lead",
    "kill-at-stand",
    "power-at-stand",
    "kill-at-commit",
    "kill-at-snapshot",
    "power-at-snapshot",
)
"""What is done to a node, and the moment in its life at which it is; simulator only."""


def aims_at_leader(kind: str, shape: str) -> bool:
    """The shape takes the first of the order for the leader, so that whoever leads then has to stand there."""
    return shape.startswith(("leader", "followers"))
