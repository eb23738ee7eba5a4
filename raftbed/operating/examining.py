"""Asking hosts and nodes how they are."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from raftbed.errors import HostError
from raftbed.hosts.processes import read_evidence, state_command
from raftbed.operating.clusters import NodeRecord
from raftbed.operating.fleet import Fleet, Remote
from raftbed.operating.health import NodeReport, answered

PORT: Final = 8400
_ANSWER_TIMEOUT: Final = 2.0
_HOST_TIMEOUT: Final = 10.0
_CLOCK_SAMPLES: Final = 3

# $1: raftbed's directory, which may not be there yet; $2: a process, or 0.
_FACTS: Final = """
place=$1
while [ ! -d "$place" ]; do place=$(dirname -- "$place"); done
df -Pk -- "$place" | tail -n 1
[ "$2" = 0 ] || tr '\\0' '\\n' < "/proc/$2/environ" | sed -n 's/^PYTHONPATH=//p'
"""


def examine(fleet: Fleet, nodes: Mapping[str, NodeRecord], bundle: str) -> list[NodeReport]:
    """What can be known of each node now.

    Parameters:
        fleet: the hosts.
        nodes: what is remembered of the nodes.
        bundle: SHA-256 of the code that was deployed, for nodes that do not run.
    """
    reports = fleet.each(lambda remote: look_at(remote, nodes.get(remote.name), bundle))
    found = []
    for name, report in reports.items():
        address = nodes[name].address if name in nodes else ""
        found.append(report if isinstance(report, NodeReport) else NodeReport(name, address, report.message))
    return found


def look_at(remote: Remote, node: NodeRecord | None, bundle: str = "") -> NodeReport:
    """What can be known of one node now; whatever goes wrong is part of the report."""
    address = node.address if node is not None else f"{remote.entry.peer_address}:{PORT}"
    report = NodeReport(remote.name, address, bundle=bundle)
    try:
        report = replace(report, **_on_host(remote, bundle))
    except HostError as error:
        report = replace(report, host_error=error.message.removeprefix(f"{remote.name}: ").rstrip("."))
    if report.process in ("gone", "stopped"):
        return report
    try:
        return replace(report, **answered(ask(remote, address, "/status")))
    except (OSError, HostError, http.client.HTTPException, ValueError, KeyError) as error:
        return replace(report, silence=_reason(error))


def ask(remote: Remote, address: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """What a node answers over HTTP, decoded.

    Parameters:
        remote: its host.
        address: "host:port" of the node.
        path: what to ask.
        body: to be posted; None: a GET.

    Raises:
        OSError, HostError, http.client.HTTPException, ValueError: no answer, or one that is not understood.
    """
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_ANSWER_TIMEOUT)
    connection.sock = remote.open_port(host, int(port), timeout=_ANSWER_TIMEOUT)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(answer.get("message", f"status {response.status}"))
    return answer


def _on_host(remote: Remote, bundle: str) -> dict[str, Any]:
    offset, error = _clock(remote)
    evidence = read_evidence(
        remote.run(state_command(remote.path("node.pid")), timeout=_HOST_TIMEOUT).stdout, host=remote.name
    )
    facts = ["/bin/sh", "-c", _FACTS, "facts", remote.entry.home, str(evidence.pid if evidence.is_alive else 0)]
    disk, *paths = remote.run(facts, timeout=_HOST_TIMEOUT).stdout.splitlines()
    free = re.search(r"\s\d+\s+\d+\s+(\d+)\s+\d+%\s", disk)
    running = re.search(r"/bundle/([0-9a-f]{64})", paths[0]) if paths else None
    return {
        "process": evidence.state,
        "process_detail": evidence.reason,
        "disk_free": int(free[1]) * 1024 if free else None,
        "bundle": running[1] if running else bundle,
        "clock_offset": offset,
        "clock_error": error,
    }


def _clock(remote: Remote) -> tuple[float | None, float | None]:
    """By how much the host's clock is ahead, and by how much that may be wrong: half of the time that asking took.

    As NTP does it (RFC 5905), the quickest of a few answers counts.
    """
    remote.connection()  # the time that a login takes would be part of the first answer
    answers = [_clock_once(remote) for _ in range(_CLOCK_SAMPLES)]
    known = [answer for answer in answers if answer is not None]
    return min(known, key=lambda answer: answer[1]) if known else (None, None)


def _clock_once(remote: Remote) -> tuple[float, float] | None:
    asked = time.time()
    said = remote.run(["date", "+%s.%N"], timeout=_HOST_TIMEOUT).stdout.strip()
    heard = time.time()
    whole, _, part = said.partition(".")
    if not whole.isdecimal():
        return None
    exact = part.isdecimal()  # not every date(1) knows nanoseconds
    then = float(f"{whole}.{part}") if exact else int(whole) + 0.5
    return then - (asked + heard) / 2, (heard - asked) / 2 + (0 if exact else 0.5)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_ANSWER_TIMEOUT:g} s"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(said)[:1].lower() + str(said)[1:].rstrip(".")
