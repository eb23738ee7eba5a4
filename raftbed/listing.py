"""The ``list`` and ``clean`` commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftbed import suite


def rows(kind: str, store: Path) -> list[tuple[str, str]]:
    """Name and description of everything of one kind."""
    if kind == "tests":
        return [(test.name, _describe(test)) for test in suite.TESTS.values()]
    if kind == "workloads":
        return [(name, make().summary) for name, make in suite.WORKLOADS.items()]
    if kind == "bugs":
        from raftbed import bugs

        found = [bugs.load(name) for name in bugs.names()]
        return [(bug.name, f"{bug.mistake} ({bug.seen_in}; try {bug.test})") for bug in found]
    if kind == "runs":
        return [(run.name, run.description) for run in _runs(store)]
    faults = {**suite.FAULTS, **suite.SIMULATED_FAULTS, **suite.SHELL_FAULTS}
    hosts = {**suite.HOSTS, **suite.HOSTS_BY_NAME}
    return list({"faults": faults, "hosts": hosts, "systems": suite.SYSTEMS}[kind].items())


def documents(kind: str, store: Path) -> list[dict[str, Any]]:
    """The same for machines; of runs also what the description says, field by field."""
    if kind != "runs":
        return [{"name": name, "description": description} for name, description in rows(kind, store)]
    return [
        {
            "name": run.name,
            "description": run.description,
            "path": str(run.path),
            "validity": run.validity,
            "state": run.state,
            "command": run.command,
        }
        for run in _runs(store)
    ]


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What `clean` did.

    Attributes:
        removed: the names of what is gone.
        left: the names of hosts that somebody keeps for a purpose, and that are up as before.
    """

    removed: list[str]
    left: list[str]


def clean(store: Path, say: Callable[[str], None], *, everything: bool = False) -> Cleaned:
    """Remove leftovers of dead runs, and hosts that runs of this store kept.

    Parameters:
        store: whose runs.
        say: is told what is removed, and what is left alone.
        everything: also the clusters of `raftbed cluster up`, and what runs of other stores kept; of containers, those
            that runs kept go in any case.
    """
    from raftbed.hosts import docker_runs, labs, tunnel_directory
    from raftbed.operating import clusters

    removed = [*labs.sweep(store), *labs.sweep(clusters.clusters_directory()), *tunnel_directory.sweep()]
    left = []
    place = os.path.realpath(store)
    for lab in labs.list_labs(store):
        inside = os.path.commonpath([place, os.path.realpath(lab.directory)]) == place
        if everything or inside:
            labs.remove_lab(lab)
            removed.append(lab.name)
        else:
            left.append(lab.name)
    removed += docker_runs.clean()
    for name in removed:
        say(f"removed {name}")
    for name in left:
        say(f"left alone: {name}")
    clusters.tidy_up()
    return Cleaned(removed, left)


def tidy(store: Path) -> None:
    """Remove what runs that were killed left behind; every command that touches runs does this first."""
    import contextlib

    from raftbed.errors import RaftbedError
    from raftbed.hosts import docker_runs, labs, tunnel_directory

    # Tidying up must not keep anyone from working.
    with contextlib.suppress(OSError, RaftbedError):
        labs.sweep(store)
    with contextlib.suppress(OSError):
        tunnel_directory.sweep()
    with contextlib.suppress(OSError, RaftbedError):
        docker_runs.sweep()


def _describe(test: suite.NamedTest) -> str:
    return f"{test.summary}; faults: {', '.join(test.faults) or 'none'}"


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of the store; what could not be read is None."""

    name: str
    path: Path
    validity: str | None
    state: str | None
    command: str | None
    description: str


def _runs(store: Path) -> list[_Run]:
    from raftbed.errors import StoreError
    from raftbed.store import Store

    found = []
    for directory in Store(store).runs():
        try:
            manifest, results = directory.manifest(), directory.results()
        except StoreError as error:
            found.append(_Run(directory.path.name, directory.path, None, None, None, f"unreadable: {error}"))
            continue
        validity = results.validity if results else None
        said = f"{validity or 'not checked':<12} {manifest.state:<12} {manifest.command}"
        found.append(_Run(manifest.run, directory.path, validity, manifest.state, manifest.command, said))
    return found
