"""A container engine, Docker or Podman, as its command line: the two speak the same words.

The command line and not a library: it finds the engine the way its user set it up (contexts, sockets, groups), and is
what every installation has. Debian 12 has no Compose version 2, and none is needed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from raftbed.errors import HostError
from raftbed.hosts.children import start_program
from raftbed.hosts.prerequisites import find_program

CHOICE: Final = "RAFTBED_DOCKER_ENGINE"
"""Environment variable: "docker" or "podman", or the path of one; without it the first that answers is taken."""

REACHING: Final = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "CONTAINER_HOST")
"""Environment variables that say which engine the command line talks to."""

_INSTALL: Final = "Install one: apt-get install docker.io (or podman), or run on --hosts local, which needs neither."
_PROBE_TIMEOUT: Final = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command of the engine ended.

    Attributes:
        status: exit status.
        stdout: decoded as UTF-8 with replacement, without the last line's end.
        stderr: likewise.
    """

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that answers.

    Attributes:
        program: path of its command line.
        kind: "docker" or "podman".
        version: of the engine.
        environment: what `REACHING` was set to when it was found.
    """

    program: str
    kind: str
    version: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    async def call(
        self, *arguments: str, stdin: bytes | None = None, timeout: float = 60.0, check: bool = True
    ) -> Answer:
        """Run a command of the engine and wait for its end.

        Parameters:
            arguments: never read by a shell.
            stdin: what it reads.
            timeout: seconds; it is killed then.
            check: a status other than zero is an error.

        Raises:
            HostError: it failed or did not end in time; says what the engine said.
        """
        shown = f"{self.kind} {arguments[0]}"
        environment = {**os.environ, **self.environment, "LC_ALL": "C"}
        # Files and not pipes: podman's containers hold on to what its command line wrote to.
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            try:
                process = await start_program(
                    self.program,
                    *arguments,
                    stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
                    stdout=stdout,
                    stderr=stderr,
                    env=environment,
                )
            except OSError as error:
                raise HostError(f"{self.program} cannot be started: {error.strerror or error}.") from error
            try:
                async with asyncio.timeout(timeout):
                    await process.communicate(stdin)
            except TimeoutError as error:
                raise HostError(
                    f"`{shown}` did not end within {timeout:g} s.", remedy=f"Does the engine answer? {self.kind} info"
                ) from error
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
            answer = Answer(process.returncode or 0, _text(stdout), _text(stderr))
        if check and answer.status != 0:
            raise HostError(f"`{shown}` failed: {_said(answer)}")
        return answer

    async def inspect(self, what: str, *names: str) -> list[dict[str, Any]]:
        """What the engine knows of things by name or id; those that there are not are left out.

        Parameters:
            what: "container", "network", "image".
        """
        if not names:
            return []
        answer = await self.call(what, "inspect", *names, check=False)
        try:
            found: list[dict[str, Any]] = json.loads(answer.stdout or "[]")
        except ValueError as error:
            raise HostError(
                f"`{self.kind} {what} inspect` gave an unexpected answer: {answer.stdout[:200]!r}."
            ) from error
        return found

    async def labelled(self, what: str, label: str) -> list[str]:
        """The ids of all containers or networks, running or not, that carry a label.

        Parameters:
            what: "container" or "network".
            label: "key" or "key=value".
        """
        every = ["--all"] if what == "container" else []
        answer = await self.call(what, "ls", *every, "--quiet", "--filter", f"label={label}")
        return answer.stdout.split()


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace").strip()


def _said(answer: Answer) -> str:
    text = " ".join((answer.stderr or answer.stdout).split())[-1000:]
    return text or f"status {answer.status}"


async def find_engine() -> Engine:
    """The engine to make hosts with.

    Raises:
        HostError: none is installed, none answers, or its containers cannot be reached; with the remedy.
    """
    found, problems = await _look()
    if found:
        return found[0]
    if problems:
        raise problems[0]
    chosen = os.environ.get(CHOICE, "")
    if chosen:
        raise HostError(f"{CHOICE} names {chosen!r}, which is not installed.", remedy=_INSTALL)
    raise HostError("containers need docker or podman, and neither is installed.", remedy=_INSTALL)


async def answering_engines() -> list[Engine]:
    """Every engine that answers and can make hosts, the one to take first."""
    return (await _look())[0]


async def _look() -> tuple[list[Engine], list[HostError]]:
    chosen = os.environ.get(CHOICE, "")
    found: list[Engine] = []
    problems: list[HostError] = []
    for name in (chosen,) if chosen else ("docker", "podman"):
        program = find_program(name)
        if not program:
            continue
        try:
            found.append(await _examine(program))
        except HostError as error:
            problems.append(error)
    return found, problems


async def _examine(program: str) -> Engine:
    """Find out what kind of engine a program is, and whether it can make hosts."""
    environment = {name: os.environ[name] for name in REACHING if name in os.environ}
    trial = Engine(program, os.path.basename(program), environment=environment)
    # A package of Debian's installs podman under docker's name.
    kind = "podman" if "podman" in (await trial.call("--version", timeout=_PROBE_TIMEOUT)).stdout.lower() else "docker"
    trial = Engine(program, kind, environment=environment)
    answer = await trial.call("info", "--format", "{{json .}}", timeout=_PROBE_TIMEOUT, check=False)
    try:
        known: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        known = {}
    problem = known.get("ServerErrors") or []
    if answer.status != 0 or not known or problem:
        raise _silent(trial, " ".join(problem) or _said(answer))
    if kind == "podman":
        version, rootless = known["version"]["Version"], bool(known["host"]["security"]["rootless"])
    else:
        version = known.get("ServerVersion", "")
        rootless = any("rootless" in option for option in known.get("SecurityOptions") or [])
    if rootless:
        raise HostError(
            f"this {kind} runs without root: the addresses of its containers cannot be reached from here.",
            remedy=f"Use the {kind} of root (sudo), or --hosts local, which needs no root.",
        )
    return Engine(program, kind, str(version), environment)


def _silent(engine: Engine, said: str) -> HostError:
    if "permission denied" in said.lower():
        return HostError(
            f"the {engine.kind} engine is not open to this user: {said}",
            remedy="Join its group (sudo usermod -aG docker $USER, then log in again), or run raftbed as root.",
        )
    start = "sudo systemctl start docker" if engine.kind == "docker" else "podman info"
    return HostError(
        f"{engine.kind} is installed, but no engine answers: {said}",
        remedy=f"Start it: {start}; or say where it is: DOCKER_HOST.",
    )
