"""Preflight: what would keep a run from succeeding, found before it starts, on all hosts at once.

Every host says what it is like in one round trip; everything that is wrong is told at once, with its remedy, so that
nobody mends one thing after another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from raftbed.errors import CommandError, HostError, HostsError, RaftbedError
from raftbed.hosts.base import Host

LEAST_DISK: Final = 100 << 10
"""KiB that must be free below a host's home: code, packages, a log and a trace of some minutes."""

_LEAST_DISK_WITHOUT_PACKAGES: Final = 8 << 10

MOST_CLOCK_OFFSET: Final = 1.0
"""Seconds by which a host's clock may differ from the controller's before somebody is told."""

OLDEST_PYTHON: Final = (3, 11)
_TIMEOUT: Final = 20.0
_PACKAGES: Final = {"tar": "tar", "gzip": "gzip", "awk": "mawk", "sed": "sed", "setsid": "util-linux"}


@dataclass(slots=True)
class Facts:
    """What a host said of itself; see ``preflight.sh``.

    Attributes:
        values: key to what was said of it, each line.
        offset: seconds by which its clock is ahead of the controller's.
        uncertainty: seconds that the answer took: the offset is known to half of it.
    """

    values: dict[str, list[str]] = field(default_factory=dict)
    offset: float = 0.0
    uncertainty: float = 0.0

    def all(self, key: str) -> list[str]:
        """All that was said of `key`."""
        return self.values.get(key, [])

    def one(self, key: str) -> str:
        """What was said last of `key`, or ""."""
        return self.all(key)[-1] if self.all(key) else ""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run needs of its hosts.

    Attributes:
        ports: TCP ports that must be free.
        faults: kinds of fault that will strike.
        clean: the command that removes what an earlier run left on the hosts.
        clusters: tells which clusters this user left running: by what their nodes know them, the command that takes
            them down.
    """

    ports: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()
    clean: str = "raftbed clean"
    clusters: Callable[[], Mapping[str, str]] = dict


async def preflight(hosts: Mapping[str, Host], needs: Needs) -> list[str]:
    """Look at all hosts at once; returns a sentence for whatever is odd but no obstacle.

    Raises:
        HostsError: some hosts cannot be used as they are; each reason with its remedy.
    """
    found = await asyncio.gather(*(_examine(host, needs) for host in hosts.values()))
    problems = [problem for problems, _ in found for problem in problems]
    if problems:
        raise problems[0] if len(problems) == 1 else HostsError(problems, of=len(hosts))
    return [warning for _, warnings in found for warning in warnings]


async def _examine(host: Host, needs: Needs) -> tuple[list[HostError], list[str]]:
    try:
        facts = await ask(host, needs.ports)
    except HostError as error:
        return [error], []
    except RaftbedError as error:
        return [HostError(str(error), host=host.name)], []
    return list(problems_of(host, facts, needs)), list(warnings_of(host, facts))


@cache
def _script() -> str:
    return Path(__file__).with_name("preflight.sh").read_text(encoding="utf-8")


async def ask(host: Host, ports: Iterable[int] = ()) -> Facts:
    """What a host is like.

    Raises:
        HostError: it cannot be asked.
    """
    arguments = [host.home, host.python or "python3", *map(str, ports)]
    before = time.time()
    try:
        said = await host.run(["/bin/sh", "-c", _script(), "preflight", *arguments], timeout=_TIMEOUT, check=False)
    except CommandError as error:
        if error.status is None:
            raise HostError(
                f"it did not answer a simple question within {_TIMEOUT:g} s.",
                host=host.name,
                remedy="It hangs, or is overloaded: restart it.",
            ) from error
        raise
    after = time.time()
    if said.status != 0:  # the script's own is 0
        heard = " ".join((said.stdout.strip() or said.stderr.strip())[-300:].split()).rstrip(".")
        raise HostError(
            f"logging in works, but no command runs there (status {said.status}): {heard or 'nothing was said'}.",
            host=host.name,
            remedy="Has this user a shell? Name another `user` in the inventory.",
        )
    facts = Facts()
    for line in said.stdout.splitlines():
        key, _, value = line.partition(" ")
        facts.values.setdefault(key, []).append(value.strip())
    try:
        facts.offset = float(facts.one("now")) - (before + after) / 2
    except ValueError as error:
        raise HostError(f"an unexpected answer to preflight: {said.stdout[-200:]!r}.", host=host.name) from error
    facts.uncertainty = after - before
    return facts


def problems_of(host: Host, facts: Facts, needs: Needs) -> Iterable[HostError]:
    """What keeps a run from succeeding on a host; each with its remedy."""

    def problem(message: str, remedy: str) -> HostError:
        return HostError(message, host=host.name, remedy=remedy)

    identity, _, user = facts.one("user").partition(" ")
    if identity != "0":
        yield problem(
            f"commands run as {user or identity!r}, who is not root.",
            "Log in as root, or write into the inventory: sudo = true",
        )
        return  # whatever else is wrong follows from it
    yield from _python(host, facts)
    for program in facts.all("missing"):
        if program != (host.python or "python3"):
            package = _PACKAGES.get(program, "coreutils")
            yield problem(f"the program {program} is missing.", f"Install it there: apt-get install {package}")
    yield from _disk(host, facts)
    addresses = facts.all("address")
    if addresses and host.address not in addresses:
        own = ", ".join(address for address in addresses if not address.startswith("127.")) or "none"
        yield problem(
            f"its peers would reach it at {host.address}, which is no address of its own ({own}).",
            'Write the one on the network of the hosts into the inventory: peer = "..."',
        )
    yield from _leftovers(host, facts, needs)
    if "partition" in needs.faults and not facts.all("tool"):
        yield problem(
            "it has none of nft, iptables and ip, with which partitions are made.",
            "Install one there: apt-get install nftables, or choose other --faults.",
        )


def _disk(host: Host, facts: Facts) -> Iterable[HostError]:
    free = int(facts.one("free") or 0)
    least = _LEAST_DISK_WITHOUT_PACKAGES if host.shares_interpreter else LEAST_DISK
    if free < least:
        yield HostError(
            f"{free >> 10} MiB are free below {host.home}, and a run needs {least >> 10} MiB.",
            host=host.name,
            remedy="Make room there, or choose another `home` in the inventory.",
        )
    elif facts.one("unwritable"):
        yield HostError(
            f"{host.home} cannot be written: {facts.one('unwritable')}.",
            host=host.name,
            remedy="Mount it writable, or choose another `home` in the inventory.",
        )


def _python(host: Host, facts: Facts) -> Iterable[HostError]:
    python = host.python or "python3"
    words = facts.one("python").split()
    others = [name for name in facts.all("other-python") if name != python]
    install = "Install Python 3.11 or later there: apt-get install python3"
    remedy = f'Write into the inventory: python = "{others[-1]}"' if others else install
    try:
        version = tuple(int(number) for number in words[1:4])
        if python in facts.all("missing") or len(version) != 3:
            raise ValueError(python)
    except ValueError:
        said = facts.one("python")
        known = python not in facts.all("missing")
        yield HostError(
            f"its {python} does not work: {said}." if known else f"it has no {python}.", host=host.name, remedy=remedy
        )
        return
    if version < OLDEST_PYTHON or words[0] != "cpython":
        shown = ".".join(words[1:4])
        yield HostError(
            f"its {python} is {words[0]} {shown}; nodes need CPython 3.11 or later.", host=host.name, remedy=remedy
        )


def _leftovers(host: Host, facts: Facts, needs: Needs) -> Iterable[HostError]:
    node = facts.one("node")
    if node:
        identity = facts.one("cluster")
        known = needs.clusters().get(identity, "") if identity else ""
        remedy = f"If nobody needs that cluster any more: {known}"
        if not known:
            remedy = (
                "Wait for its run to end, or take its cluster down where it was made: raftbed cluster down; if nobody "
                f"needs it any more: {needs.clean}"
            )
        of = f" of the cluster {identity!r}" if identity else ""
        yield HostError(f"a node{of} is running there already (process {node}).", host=host.name, remedy=remedy)
    elif facts.all("taken"):
        yield HostError(
            f"port {', '.join(facts.all('taken'))} is in use there.",
            host=host.name,
            remedy="Stop what listens there; to see it: ss -ltnp",
        )
    faults = sorted(set(facts.all("fault")))
    if faults:
        yield HostError(
            f"faults of another run are in force there ({', '.join(faults)}).",
            host=host.name,
            remedy=f"They heal by themselves in some seconds where that run is dead; else: {needs.clean}",
        )


def warnings_of(host: Host, facts: Facts) -> Iterable[str]:
    """What is odd about a host, but no obstacle."""
    if abs(facts.offset) > MOST_CLOCK_OFFSET + facts.uncertainty / 2:
        way = "ahead of" if facts.offset > 0 else "behind"
        yield (
            f"{host.name}: its clock is {abs(facts.offset):.1f} s {way} the controller's, so that the times in its log "
            "do not fit the others'. Set it: timedatectl set-ntp true"
        )
