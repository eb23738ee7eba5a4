"""Planted bugs: real, historical mistakes of Raft implementations, each a small change made from outside.

A test bed is worth what it finds. ``raftbed run TEST --bug NAME`` runs the ordinary test on nodes that carry the bug,
and must end invalid. Production code has no switch for any of them: a bug is a module here that replaces methods of
:mod:`raftbed.nodes`, is sent to the nodes only in ``--bug`` runs, and starts the node as
``python -m raftbed.bugs.MODULE``. Bugs import only :mod:`raftbed.nodes` and this package, which travels with them.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Beat:
    """One fault of a story.

    Attributes:
        kind: of the fault.
        shape: of it.
        begin: seconds from the story's beginning, from (least, most) of which it is drawn.
        lasts: seconds, likewise.
        options: how strong it is, by name (docs/simulation.md).
        backwards: the shape takes the nodes in the reverse order; the leader, where it aims at it, first all the same.
    """

    kind: str
    shape: str
    begin: tuple[float, float]
    lasts: tuple[float, float]
    options: Mapping[str, float] = field(default_factory=dict)
    backwards: bool = False


@dataclass(frozen=True, slots=True)
class Story:
    """Faults that together bring about what a bug needs, told again and again with other nodes and other moments.

    Attributes:
        beats: the faults.
        every: seconds from one beginning to the next; 0: it is told once.
        begin: seconds after the clients start.
    """

    beats: tuple[Beat, ...]
    every: float = 0.0
    begin: float = 0.4


@dataclass(frozen=True, slots=True)
class Scenario:
    """What exposes a bug in simulation.

    Attributes:
        test: the named test.
        faults: kinds of fault, instead of the test's own; () for those.
        story: the schedule, instead of one that is dealt from kinds of fault.
        node_options: configuration, besides the bug's own.
        nodes: the size of cluster; None: as the bug has it.
        settings: other settings of the plan, by name.
    """

    test: str = "chaos-test"
    faults: tuple[str, ...] = ()
    story: Story | None = None
    node_options: Mapping[str, Any] = field(default_factory=dict)
    nodes: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bug:
    """A planted bug.

    Attributes:
        name: as on the command line, "stale-leader-read".
        mistake: what the code does wrong, in one sentence.
        breaks: the promise that is broken, "linearizability", "exactly-once", "durability", ...
        seen_in: the implementations that had it, with issue numbers.
        test: the named test that exposes it.
        faults: what has to happen for it to show.
        plant: makes the mistake, by replacing methods of raftbed.nodes in this process.
        node_options: configuration that the historical system had and that the bug needs (Raft's Config fields).
        nodes: the size of cluster that it needs; None: any.
        simulation: its scenario in simulation.
    """

    name: str
    mistake: str
    breaks: str
    seen_in: str
    test: str
    faults: str
    plant: Callable[[], None]
    node_options: Mapping[str, Any] = field(default_factory=dict)
    nodes: int | None = None
    simulation: Scenario = Scenario()

    @property
    def module(self) -> str:
        """Name of the module that plants it."""
        return f"raftbed.bugs.{module_name(self.name)}"


def module_name(name: str) -> str:
    """Name of the file, without its ending, that holds the bug called `name`."""
    return name.replace("-", "_")


def names() -> list[str]:
    """The names of all bugs there are, sorted."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Bug:
    """The bug called `name`. Nothing is planted by this.

    Raises:
        KeyError: there is none of that name.
    """
    if name not in names():
        raise KeyError(name)
    bug = importlib.import_module(f"{__name__}.{module_name(name)}").BUG
    assert isinstance(bug, Bug)
    return bug


def replace(owner: Any, name: str, replacement: Callable[..., Any] | property) -> None:
    """Put `replacement` in the place of a method or property of a class, or of a function of a module.

    Raises:
        AttributeError: there is no such thing to replace: the code has moved on, and the bug with it must.
    """
    getattr(owner, name)
    setattr(owner, name, replacement)


def run_planted(bug: Bug) -> int:
    """Plant `bug` in this process and run a node in it; returns the node's exit status."""
    from raftbed.nodes.__main__ import main

    bug.plant()
    return main(sys.argv[1:])
