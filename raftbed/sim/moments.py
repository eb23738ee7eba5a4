"""Faults that wait for a moment: just after a vote, between append and commit, as a leader begins.

A schedule hits such a moment by luck only, because it lasts a millisecond. A moment is known by what a node traces; the
node is struck a little later, within the time that a sync or a message takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from raftbed.nodes.raft import Trace
from raftbed.sim.machines import Machines

_MOST_STRIKES = 2
_CHANCE = 0.3  # that a moment of the kind is the one
_WITHIN_MS = 2.5
_MILLISECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Aim:
    """What to wait for, and what to do then.

    Attributes:
        why: in words.
        event: the traced event.
        does: what is done to the node that traced it.
        role: for "role" events, the role that the node takes up.
    """

    why: str
    event: str
    does: Callable[[Machines, str, str], object]
    role: str | None = None


def _kill(machines: Machines, node: str, owner: str) -> None:
    machines.kill(node, owner)


def _fail_power(machines: Machines, node: str, owner: str) -> None:
    machines.fail_power(node, owner)


def _pause(machines: Machines, node: str, owner: str) -> None:
    machines.pause(node, owner)


MOMENTS: Mapping[str, Aim] = {
    "kill-at-vote": Aim("a vote has just become durable", "vote", _kill),
    "power-at-vote": Aim("a vote has just become durable", "vote", _fail_power),
    "kill-at-append": Aim("entries were appended, and are on their way to the disk", "append", _kill),
    "power-at-append": Aim("entries were appended, and are on their way to the disk", "append", _fail_power),
    "pause-at-append": Aim("entries were appended, and are not committed", "append", _pause),
    "kill-at-truncate": Aim("a log was just cut short", "truncate", _kill),
    "power-at-truncate": Aim("a log was just cut short", "truncate", _fail_power),
    "kill-at-lead": Aim("a node has just begun to lead", "role", _kill, "leader"),
    "pause-at-lead": Aim("a node has just begun to lead", "role", _pause, "leader"),
    "kill-at-stand": Aim("a node has just stood for election", "role", _kill, "candidate"),
    "power-at-stand": Aim("a node has just stood for election", "role", _fail_power, "candidate"),
    "kill-at-commit": Aim("a node has just learned of a commit", "commit", _kill),
    "kill-at-snapshot": Aim("a snapshot was taken or installed, and the log is to be cut after it", "snapshot", _kill),
    "power-at-snapshot": Aim("the same, and the machine loses its power", "snapshot", _fail_power),
}


class Moment:
    """One armed step.

    Parameters:
        aim: what to wait for.
        owner: the step that holds whom it struck.
        random: of that step.
        options: "chance" that a moment of the kind is the one, "within_ms", "strikes" at most, and "lasting_ms" of each
            strike; without the last, until the step is healed.

    Attributes:
        owner: see there.
        lasts: nanoseconds that each strike lasts; None: until the step is healed.
        struck: the nodes that were.
    """

    def __init__(self, aim: Aim, owner: str, random: Random, options: Mapping[str, float]) -> None:
        self._aim = aim
        self.owner = owner
        self._random = random
        self._chance = options.get("chance", _CHANCE)
        self._within = options.get("within_ms", _WITHIN_MS) * _MILLISECOND
        self._most_strikes = options.get("strikes", _MOST_STRIKES)
        self.lasts = int(options["lasting_ms"] * _MILLISECOND) if "lasting_ms" in options else None
        self._strikes = 0
        self.struck: list[str] = []

    def comes(self, traces: Sequence[Trace]) -> bool:
        """What was traced is such a moment, and this is the one."""
        if self._strikes >= self._most_strikes:
            return False
        aim = self._aim
        for trace in traces:
            if trace.event == aim.event and (aim.role is None or trace.fields["role"] == aim.role):
                if self._random.random() >= self._chance:
                    return False
                self._strikes += 1
                return True
        return False

    def delay(self) -> int:
        """Nanoseconds until it strikes."""
        return int(self._random.random() * self._within)

    def strike(self, machines: Machines, node: str) -> bool:
        """Do it; False: it is too late for that."""
        if not self._strikes or node in self.struck or not machines.nodes[node].running:
            return False
        self.struck.append(node)
        self._aim.does(machines, node, self.owner)
        return True

    def over(self) -> None:
        """Strike no more."""
        self._strikes = 0
