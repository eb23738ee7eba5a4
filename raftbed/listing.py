"""The ``list`` and ``clean`` commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

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
        return _runs(store)
    return list({"faults": suite.FAULTS, "hosts": suite.HOSTS, "systems": suite.SYSTEMS}[kind].items())


def clean(store: Path, say: Callable[[str], None]) -> list[str]:
    """Remove kept hosts and leftovers of dead runs; returns what was removed."""
    from raftbed.hosts import labs

    removed = list(labs.sweep(store))
    for lab in labs.list_labs(store):
        labs.remove_lab(lab)
        removed.append(lab.name)
    for name in removed:
        say(f"removed {name}")
    return removed


def tidy(store: Path) -> None:
    """Remove what runs that were killed left behind; every command that touches runs does this first."""
    import contextlib

    from raftbed.errors import RaftbedError
    from raftbed.hosts.labs import sweep

    with contextlib.suppress(OSError, RaftbedError):  # tidying up must not keep anyone from working
        sweep(store)


def _describe(test: suite.NamedTest) -> str:
    return f"{test.summary}; faults: {', '.join(test.faults) or 'none'}"


def _runs(store: Path) -> list[tuple[str, str]]:
    from raftbed.errors import StoreError
    from raftbed.store import Store

    found = []
    for directory in Store(store).runs():
        try:
            manifest, results = directory.manifest(), directory.results()
        except StoreError as error:
            found.append((directory.path.name, f"unreadable: {error}"))
            continue
        verdict = results.validity if results else "not checked"
        found.append((manifest.run, f"{verdict:<12} {manifest.state:<12} {manifest.command}"))
    return found
