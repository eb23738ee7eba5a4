"""What the ``cluster`` commands print, and their exit codes. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence

from raftbed.errors import EXIT_COULD_NOT_RUN, EXIT_VALID, CommandError, HostError
from raftbed.hosts.base import CommandResult
from raftbed.operating.logs import LogLine


def prefixed(host: str, text: str, width: int) -> list[str]:
    """The lines of a text, each behind the name of the host that it came from, padded to `width`."""
    return [f"{host.ljust(width)} | {line}" for line in text.splitlines()]


def width(names: Iterable[str]) -> int:
    """The length of the longest name."""
    return max(map(len, names), default=0)


def log_line(line: LogLine, wide: int) -> str:
    """A line of a node's log as it is shown."""
    return f"{line.node.ljust(wide)} | {line.text}"


def worst_status(results: Iterable[CommandResult | HostError]) -> int:
    """The exit code of a command that ran on several hosts: the largest; 255 for a host that gave none."""
    return max(
        (EXIT_COULD_NOT_RUN if isinstance(result, HostError) else result.status for result in results),
        default=EXIT_VALID,
    )


def one_code(results: Iterable[object]) -> int:
    """The exit code of something that was done on several hosts: 255 when it failed on one."""
    return EXIT_COULD_NOT_RUN if any(isinstance(result, HostError) for result in results) else EXIT_VALID


def failure(host: str, error: HostError) -> list[str]:
    """Why something failed on a host, and what to do, without the host's name, which stands before it."""
    said = error.message.removeprefix(f"{host}: ")
    if isinstance(error, CommandError) and error.status is not None and error.stderr.strip():
        said = error.stderr.strip()
    return [*said.splitlines(), *error.remedy.splitlines()]


def how_to_talk(
    name: str,
    leader: str,
    addresses: Mapping[str, str],
    ports: Mapping[str, int] | None,
    *,
    inside: bool,
    several: bool,
) -> list[str]:
    """How to talk to a cluster, for whoever has just brought it up.

    Parameters:
        name: of the cluster.
        leader: the node that leads.
        addresses: node to "host:port".
        ports: node to a port on loopback that leads to it; None where nothing is forwarded.
        inside: the addresses can be reached from the hosts only.
        several: there are other clusters, so that commands must say which one they mean.
    """
    which = f" --cluster {shlex.quote(name)}" if several else ""
    if ports:
        base, before = f"http://127.0.0.1:{ports[leader]}", ""
        lines = ["Each node has a port on this machine's loopback, for as long as the cluster is up:"]
        lines += [f"  {node}  http://127.0.0.1:{port}" for node, port in ports.items()]
        lines += ["Write and read:"]
    else:
        base = f"http://{addresses[leader]}"
        before = f"raftbed cluster exec{which} {leader} -- " if inside else ""
        lines = ["Write and read, on the host of the leader:" if inside else "Write and read:"]
    lines += [
        f"  {before}curl -sS -d '{{\"value\": 7}}' {base}/kv/color/put",
        f"  {before}curl -sS {base}/kv/color",
    ]
    if inside and not ports:
        lines += [f"Or from here, through ports on loopback:  raftbed cluster forward{which}"]
    lines += [
        f"Look at it:      raftbed cluster status{which}",
        f"Log in:          raftbed cluster ssh{which} {leader}",
        f"Take it away:    raftbed cluster down{which}",
    ]
    return lines


def names_of(chosen: Sequence[str], known: Iterable[str]) -> list[str]:
    """The nodes that are meant: those chosen, in the order of the cluster, each once; all when none is chosen.

    Raises:
        HostError: one of them is not of this cluster.
    """
    every = list(known)
    for node in chosen:
        if node not in every:
            raise HostError("there is no such node.", host=node, remedy=f"Nodes of this cluster: {', '.join(every)}.")
    return [node for node in every if node in chosen] if chosen else every
