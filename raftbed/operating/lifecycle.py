"""Starting, stopping and cleaning the nodes of a cluster that is up."""

from __future__ import annotations

import http.client
import posixpath
import time
from typing import Final

from raftbed.errors import CommandError, HostError
from raftbed.faults.toolbox import heal_command
from raftbed.hosts.processes import Signal, end_command, read_evidence, signal_command, start_command, state_command
from raftbed.operating.clusters import ClusterRecord, NodeRecord
from raftbed.operating.examining import ask, examine
from raftbed.operating.fleet import Fleet, Remote
from raftbed.operating.health import problems

_START_TIMEOUT: Final = 90.0
_STOP_TIMEOUT: Final = 5.0
_POLL: Final = 0.05
_LOOK_AGAIN: Final = 1.0

_OWN: Final = ("run", "faults", "bundle", "wheels")
"""What raftbed makes in its directory on a host."""

# $1: raftbed's directory; the others: what raftbed makes in it. Nothing else is touched.
_REMOVE: Final = """
cd -- "$1" 2>/dev/null || { echo "nothing was there"; exit 0; }
shift
rm -rf -- "$@" || exit 1
left=$(ls -A | head -n 5 | tr '\\n' ' ')
if [ -n "$left" ]; then echo "removed; left alone, because it is not raftbed's: $left"; exit 0; fi
rmdir -- "$PWD" 2>/dev/null
echo "removed"
"""


def start(fleet: Fleet, record: ClusterRecord) -> dict[str, str | HostError]:
    """Start nodes on whatever data they have, and wait until they answer; a cluster of new nodes is initialized."""
    results = fleet.each(lambda remote: start_node(remote, _node(record, remote)))
    _initialize_if_new(fleet, record)
    return results


def stop(fleet: Fleet) -> dict[str, str | HostError]:
    """Stop nodes: SIGTERM, and SIGKILL to one that does not end within 5 seconds."""
    return fleet.each(stop_node)


def restart(fleet: Fleet, record: ClusterRecord, *, at_once: bool = False) -> dict[str, str | HostError]:
    """Stop nodes and start them again: one after the other, so that the others go on, or all at once.

    One after the other, the first that does not answer again is the last that is stopped.
    """

    def again(remote: Remote) -> str:
        node = _node(record, remote)
        stop_node(remote)
        return start_node(remote, node).replace("started", "restarted")

    if at_once:
        return fleet.each(again)
    results: dict[str, str | HostError] = {}
    for name, remote in fleet.remotes.items():
        try:
            results[name] = again(remote)
        except HostError as error:
            results[name] = error
            left = [other for other in fleet.remotes if other not in results]
            results.update((other, HostError("was left alone, as it was.", host=other)) for other in left)
            break
    return results


def running(fleet: Fleet) -> list[str]:
    """The nodes whose processes run."""
    states = fleet.each(_state)
    return [name for name, state in states.items() if state is True]


def clean(fleet: Fleet) -> dict[str, str | HostError]:
    """Remove what raftbed left on hosts: processes, faults in force, files."""

    def work(remote: Remote) -> str:
        home = remote.entry.home
        if not posixpath.isabs(home) or posixpath.normpath(home).count("/") < 2:
            raise HostError(f"{home} is no directory that can be cleaned.", host=remote.name)
        ended = remote.run(end_command(remote.path("node.pid"), timeout=_STOP_TIMEOUT), timeout=30.0).stdout
        remote.run(heal_command(home), timeout=30.0)
        said = remote.run(["/bin/sh", "-c", _REMOVE, "clean", home, *_OWN], timeout=60.0).stdout.strip()
        strays = [line.removeprefix("stray ") for line in ended.splitlines() if line.startswith("stray ")]
        return f"{said}; ended a node that no pid file named (process {', '.join(strays)})" if strays else said

    return fleet.each(work)


def start_node(remote: Remote, node: NodeRecord) -> str:
    """Start one node and wait until it answers; what was done.

    Raises:
        HostError: it could not be started, or does not answer.
    """
    evidence = read_evidence(remote.run(state_command(remote.path("node.pid"))).stdout, host=remote.name)
    if evidence.state == "stopped":
        _signal(remote, "CONT")
        return f"went on, it had been stopped by SIGSTOP (process {evidence.pid})"
    if evidence.is_alive:
        return f"ran already (process {evidence.pid})"
    if remote.run(["test", "-f", remote.path("node.json")], check=False).status != 0:
        raise HostError("nothing is deployed to it.", host=remote.name, remedy="raftbed cluster deploy")
    directory = posixpath.dirname(remote.path("node.log"))
    log = remote.path("node.log")
    command = start_command(
        node.command, environment=node.environment, directory=directory, log=log, pid_file=remote.path("node.pid")
    )
    pid = read_evidence(remote.run(command).stdout, host=remote.name).pid
    _wait_for_answer(remote, node, pid)
    return f"started (process {pid})"


def stop_node(remote: Remote) -> str:
    """Stop one node; what was done.

    Raises:
        HostError: it could not be stopped.
    """
    before = read_evidence(remote.run(state_command(remote.path("node.pid"))).stdout, host=remote.name)
    if not before.is_alive:
        return f"did not run: {before.reason}"
    try:
        _signal(remote, "TERM")
    except CommandError as error:
        if error.status is None:
            raise
        _signal(remote, "KILL")
        return f"killed: it did not end within {_STOP_TIMEOUT:g} s (process {before.pid})"
    return f"stopped (process {before.pid})"


def _node(record: ClusterRecord, remote: Remote) -> NodeRecord:
    node = record.nodes.get(remote.name)
    if node is None:
        raise HostError("nothing is deployed to it.", host=remote.name, remedy="raftbed cluster deploy")
    return node


def _state(remote: Remote) -> bool:
    printed = remote.run(state_command(remote.path("node.pid"))).stdout
    return read_evidence(printed, host=remote.name).is_alive


def _signal(remote: Remote, signal: Signal) -> None:
    command = signal_command(remote.path("node.pid"), signal, timeout=_STOP_TIMEOUT)
    remote.run(command, timeout=_STOP_TIMEOUT + 5.0)


def _wait_for_answer(remote: Remote, node: NodeRecord, pid: int) -> None:
    """Until the node answers.

    Raises:
        HostError: it ended, or does not answer in time; with the end of its log.
    """
    deadline = time.monotonic() + _START_TIMEOUT
    look_again = time.monotonic() + _LOOK_AGAIN
    said = f"it did not answer within {_START_TIMEOUT:g} s of its start"
    while time.monotonic() < deadline:
        try:
            ask(remote, node.address, "/status")
            return
        except (OSError, http.client.HTTPException, ValueError):
            time.sleep(_POLL)
        if time.monotonic() > look_again:
            look_again = time.monotonic() + _LOOK_AGAIN
            if remote.run(["test", "-d", f"/proc/{pid}"], check=False).status != 0:
                said = "it ended by itself at its start"
                break
    log = remote.run(["tail", "-n", "10", remote.path("node.log")], check=False).stdout.strip()
    raise HostError(f"{said}. The end of its log:\n{log[-2000:] or 'empty'}", host=remote.name)


def _initialize_if_new(fleet: Fleet, record: ClusterRecord) -> None:
    """Make one cluster of nodes that all belong to none: after their data was removed, say."""
    if set(fleet.remotes) != set(record.nodes):
        return
    reports = examine(fleet, record.nodes, record.bundle)
    if any(report.initialized or not report.answers for report in reports):
        return
    first = next(iter(fleet.remotes.values()))
    try:
        ask(first, record.nodes[first.name].address, "/admin/initialize", {"members": list(record.nodes)})
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise HostError(f"the cluster could not be initialized: {error}.", host=first.name) from error


def wait_for_leader(fleet: Fleet, record: ClusterRecord, *, timeout: float) -> str | None:
    """The node that leads, once one does and all that answer follow it; None when that takes too long."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        reports = examine(fleet, record.nodes, record.bundle)
        leaders = [report.node for report in reports if report.role == "leader"]
        if leaders and not problems([report for report in reports if report.answers]):
            return leaders[0]
        time.sleep(_POLL)
    return None
