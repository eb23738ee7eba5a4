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


def replace(owner: Any, name: str, replacement: Callable[..., Any]) -> None:
    """Put `replacement` in the place of a method of a class, or of a function of a module.

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
