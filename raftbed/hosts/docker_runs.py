"""Runs that have containers in an engine: which there are, whose they are, and their removal.

Every container and network carries two labels: the run that it belongs to, and, as JSON, the controller that made it.
They are the truth, and `raftbed clean` goes by them. Beside them, a file per run in the registry of labs
(``docker-RUN.json``, see `raftbed.hosts.labs`) tells a later command that there is something to tidy up, so that no
engine is asked where none was used; it also remembers that hosts are to be kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from raftbed.errors import HostError
from raftbed.hosts import labs
from raftbed.hosts.engine import Engine, answering_engines

RUN_LABEL: Final = "raftbed.run"
OWNER_LABEL: Final = "raftbed.owner"

State = Literal["live", "kept", "orphaned", "foreign"]
"""live: its controller runs. kept: it was asked to outlive its controller. orphaned: leftovers of a dead one. foreign:
of another user, machine or process namespace, whose controllers cannot be seen from here."""

_REMOVE_TIMEOUT: Final = 60.0
_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True)
class ContainerRun:
    """What one run has in an engine.

    Attributes:
        run: its value of `RUN_LABEL`.
        engine: where.
        state: see `State`.
        hosts: the names of its containers.
    """

    run: str
    engine: Engine
    state: State
    hosts: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people."""
        what = ", ".join(self.hosts) or "a network"
        return f"{self.state} {self.engine.kind} hosts {what}"


def owner() -> dict[str, Any]:
    """What identifies the calling process as the controller of a run, and where that can be looked up."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return {
        "machine": f"{machine} {socket.gethostname()}",
        "user": os.getuid(),
        "processes": os.readlink("/proc/self/ns/pid"),
        "boot": labs.boot_id(),
        "controller": os.getpid(),
        "controller_start": labs.start_time(os.getpid()),
    }


def state_of(made_by: Mapping[str, Any], *, kept: bool = False) -> State:
    """What became of the controller that `owner` described."""
    here = owner()
    if any(made_by.get(key) != here[key] for key in ("machine", "user")):
        return "foreign"
    if made_by.get("boot") != here["boot"]:
        return "orphaned"
    if made_by.get("processes") != here["processes"]:
        return "foreign"
    pid, start = int(made_by.get("controller", 0)), int(made_by.get("controller_start", 0))
    if pid > 0 and start > 0 and labs.start_time(pid) == start:
        return "live"
    return "kept" if kept else "orphaned"


# -- the registry ---------------------------------------------------------------------------------------------------


def _file(registry: Path, run: str) -> Path:
    return registry / f"docker-{run}.json"


def remember(run: str, engine: Engine, directory: Path, *, kept: bool = False) -> Path:
    """Note in the registry that a run has containers; again to note that they are kept. The file.

    Raises:
        HostError: the registry cannot be written.
    """
    record = {
        "run": run,
        "program": engine.program,
        "kind": engine.kind,
        "environment": dict(engine.environment),
        "directory": str(directory),
        "kept": kept,
        "owner": owner(),
    }
    path = _file(labs.open_registry(), run)
    beside = path.with_suffix(".part")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as stream:
        json.dump(record, stream)
    beside.replace(path)
    return path


def forget(run: str) -> None:
    """Take a run out of the registry, and the registry away when it was the last."""
    for registry in labs.registries():
        labs.remove_link(_file(registry, run))


def remembered() -> list[dict[str, Any]]:
    """What the registry says of runs with containers."""
    found = []
    for registry in labs.registries():
        for path in sorted(registry.glob("docker-*.json")):
            with contextlib.suppress(OSError, ValueError):
                record = json.loads(path.read_text())
                if isinstance(record, dict) and {"run", "program", "kind", "owner"} <= record.keys():
                    found.append(record)
    return found


def _state(record: Mapping[str, Any]) -> State:
    return state_of(record["owner"], kept=bool(record.get("kept")))


def _engine(record: Mapping[str, Any]) -> Engine:
    return Engine(record["program"], record["kind"], environment=record.get("environment") or {})


# -- the engine -----------------------------------------------------------------------------------------------------


async def list_runs(engine: Engine) -> list[ContainerRun]:
    """The runs that have containers or networks in an engine, whoever made them.

    Raises:
        HostError: the engine does not answer.
    """
    kept = {record["run"] for record in remembered() if record.get("kept")}
    owners: dict[str, str] = {}
    names: dict[str, list[str]] = {}
    containers = await engine.inspect("container", *await engine.labelled("container", RUN_LABEL))
    networks = await engine.inspect("network", *await engine.labelled("network", RUN_LABEL))
    for thing in (*(container["Config"] | {"Name": container["Name"]} for container in containers), *networks):
        labels = thing.get("Labels") or thing.get("labels") or {}
        run = labels.get(RUN_LABEL, "")
        if run:
            owners.setdefault(run, labels.get(OWNER_LABEL, ""))
            names.setdefault(run, [])
    for container in containers:
        names[container["Config"]["Labels"][RUN_LABEL]].append(container["Name"].lstrip("/"))
    return [
        ContainerRun(run, engine, state_of(_decoded(owners[run]), kept=run in kept), tuple(sorted(names[run])))
        for run in names
    ]


def _decoded(label: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        made_by = json.loads(label)
        if isinstance(made_by, dict):
            return made_by
    return {}


async def remove_run(engine: Engine, run: str) -> None:
    """Remove all containers and networks of a run, and look that they are gone.

    Raises:
        HostError: the engine does not answer, or something stays.
    """
    label, said = f"{RUN_LABEL}={run}", ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            await asyncio.sleep(0.1)
        containers = await engine.labelled("container", label)
        networks = await engine.labelled("network", label)
        if not containers and not networks:
            return
        if containers:
            removal = ("rm", "--force", "--volumes", *containers)
            said = (await engine.call(*removal, timeout=_REMOVE_TIMEOUT, check=False)).stderr or said
        for network in networks:
            said = (await engine.call("network", "rm", network, timeout=_REMOVE_TIMEOUT, check=False)).stderr or said
    raise HostError(
        f"the containers of the run {run} could not be removed: {said}",
        remedy=f"Look at them: {engine.kind} ps --all --filter label={label}",
    )


# -- for `raftbed clean`, and for every command that tidies up first ------------------------------------------------


def sweep() -> list[str]:
    """Remove what dead controllers left in engines, as far as the registry knows; what was kept stays.

    Returns:
        what was removed, for people.
    """
    removed = []
    for record in remembered():
        if _state(record) != "orphaned":
            continue
        with contextlib.suppress(HostError):
            asyncio.run(remove_run(_engine(record), record["run"]))
            _drop(record)
            removed.append(f"orphaned {record['kind']} hosts of the run {record['run']}")
    return removed


def _drop(record: Mapping[str, Any]) -> None:
    if record.get("directory"):
        labs.remove_files(Path(record["directory"]))
    forget(record["run"])


def clean() -> Iterable[str]:
    """Remove kept hosts and leftovers of dead controllers from every engine that answers; one by one, what it was.

    Raises:
        HostError: an engine in which there are such hosts does not answer, or does not remove them.
    """
    yield from sweep()
    records = {record["run"]: record for record in remembered()}
    for run, record in records.items():
        if _state(record) == "kept":
            asyncio.run(remove_run(_engine(record), run))
            _drop(record)
            yield f"kept {record['kind']} hosts of the run {run}"
    for run in _in_engines(lambda found: found.state in ("kept", "orphaned")):
        asyncio.run(remove_run(run.engine, run.run))
        forget(run.run)
        yield run.name


def leftovers() -> list[ContainerRun]:
    """What no running controller of this user holds, in every engine that answers."""
    return _in_engines(lambda found: found.state != "live")


def _in_engines(wanted: Callable[[ContainerRun], bool]) -> list[ContainerRun]:
    async def look() -> list[ContainerRun]:
        found: list[ContainerRun] = []
        for engine in await answering_engines():
            with contextlib.suppress(HostError):
                found += await list_runs(engine)
        return found

    return [run for run in asyncio.run(look()) if wanted(run)]
