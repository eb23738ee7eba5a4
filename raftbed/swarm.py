"""What is unusual about the nodes of a simulated run: options of their own, rare points that are armed. Pure, as
:mod:`raftbed.chaos` is.

A cluster in which every option is as usual, or every one is extreme, goes the same few ways again and again. Each seed
draws a few options and leaves the others alone (swarm testing: Groce and others, ISSTA 2012), alike on all nodes or
each with its own; all of them are legal, and a correct Raft must bear them. Rare points (`raftbed.sim.rare_points`) are
armed in the same way: a few of them per seed, as FoundationDB's Buggify does it. What was drawn stands in the plan, so
that it is repeated to the letter, and shrinks with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

_USUAL = 0.4  # share of seeds in which nothing of this is unusual
_OPTION = 0.25  # chance of each option otherwise
_ALIKE = 0.5  # of those, the share that is alike on all nodes
_POINT = 0.25  # chance of each rare point
_STRENGTHS = (0.3, 1.0, 1.0, 3.0)

OPTIONS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "election timeouts": (
        {"election_timeout_min": 100, "election_timeout_max": 140},
        {"election_timeout_min": 150, "election_timeout_max": 600},
        {"election_timeout_min": 300, "election_timeout_max": 400},
        {"election_timeout_min": 400, "election_timeout_max": 800},
    ),
    "payload": ({"max_payload_entries": 1}, {"max_payload_entries": 2}, {"max_payload_bytes": 1}),
    "in flight": ({"max_inflight_messages": 1}, {"max_inflight_messages": 16}, {"max_inflight_bytes": 1}),
    "uncommitted": ({"max_uncommitted_entries": 3}, {"max_uncommitted_entries": 20}, {"max_uncommitted_bytes": 500}),
    "reads": ({"max_waiting_reads": 6},),  # so few that some are refused, and that the last reads of a run are not
    "lag": ({"replication_lag_threshold": 1}, {"replication_lag_threshold": 1000}),
    "snapshots": ({"snapshot_policy": 5}, {"snapshot_policy": 20}, {"snapshot_policy": 300}, {"snapshot_policy": None}),
    "pieces": ({"snapshot_max_chunk_size": 100}, {"snapshot_max_chunk_size": 1 << 20}),
    "time of a piece": ({"install_snapshot_timeout": 100},),
    "trailing": ({"trailing_logs": 0}, {"trailing_logs": 1}, {"trailing_logs": 1000}),
    "promises": ({"pre_vote": False},),
    "quorum": ({"check_quorum": False},),
    "stalls": ({"disk_stall_timeouts": 0}, {"disk_stall_timeouts": 1}, {"disk_stall_timeouts": 100}),
}
"""What an option, or several that belong together, may be instead of what is usual."""

POINTS: Mapping[str, float] = {
    "single-entry": 0.3,
    "one-in-flight": 0.3,
    "probe-again": 0.01,
    "snapshot-now": 0.02,
    "forget-all": 0.3,
    "busy": 0.1,
    "refuse-write": 0.02,
    "refuse-read": 0.02,
    "least-timeout": 0.2,
    "give-up-leading": 0.0003,
    "transfer-now": 0.0003,
}
"""Every rare point, with the usual chance that it is taken when the core comes by (`raftbed.sim.rare_points`)."""


def draw_options(nodes: Sequence[str], seed: int, *, fixed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Node to the options in which it departs from all others'; nodes that do not are left out.

    Parameters:
        nodes: all of them.
        seed: that they belong to.
        fixed: options that someone chose, which stay.
    """
    random = Random(f"{seed}:swarm")
    if random.random() < _USUAL:
        return {}
    own: dict[str, dict[str, Any]] = {node: {} for node in nodes}
    for choices in OPTIONS.values():
        if random.random() >= _OPTION:
            continue
        alike = random.choice(choices) if random.random() < _ALIKE else None
        for node in nodes:
            chosen = alike if alike is not None else random.choice((*choices, {}))
            if not chosen.keys() & fixed.keys():
                own[node].update(chosen)
    return {node: options for node, options in own.items() if options}


def arm(seed: int) -> dict[str, float]:
    """The rare points that a seed arms, each with its chance."""
    random = Random(f"{seed}:rare")
    if random.random() < _USUAL:
        return {}
    chances = {name: min(1.0, round(chance * random.choice(_STRENGTHS), 6)) for name, chance in POINTS.items()}
    return {name: chance for name, chance in chances.items() if random.random() < _POINT}
