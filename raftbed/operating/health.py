"""What is known of each node of a cluster, and whether the cluster is well. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Process = Literal["running", "stopped", "gone", "unknown"]


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What is known of one node.

    Attributes:
        node: its name.
        address: "host:port" at which its peers reach it.
        host_error: why its host cannot be reached over SSH, "" when it can.
        process: of the node, as its host sees it; "unknown" when the host cannot be asked.
        process_detail: why the process is taken for gone.
        silence: why the node does not answer over HTTP, "" when it does.
        role: "leader", "follower", "candidate", ...; this and what follows down to `uptime` as the node says it.
        term: its current one.
        leader: whom it follows.
        applied: index of the last entry applied to its state machine.
        initialized: it knows a membership.
        version: of the nodes' code.
        bug: the planted bug.
        uptime: seconds since its start.
        bundle: SHA-256 of the code that it runs.
        disk_free: bytes, where raftbed keeps its own on the host.
        clock_offset: seconds by which the host's clock is ahead of this machine's.
        clock_error: seconds by which that may be wrong.
    """

    node: str
    address: str
    host_error: str = ""
    process: Process = "unknown"
    process_detail: str = ""
    silence: str = ""
    role: str | None = None
    term: int | None = None
    leader: str | None = None
    applied: int | None = None
    initialized: bool = False
    version: str | None = None
    bug: str | None = None
    uptime: float | None = None
    bundle: str = ""
    disk_free: int | None = None
    clock_offset: float | None = None
    clock_error: float | None = None

    @property
    def answers(self) -> bool:
        """It answered over HTTP."""
        return self.role is not None


def answered(status: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `NodeReport` that stand in a node's own status."""
    return {
        "role": status["state"],
        "term": status["term"],
        "leader": status["leader"],
        "applied": status["last_applied"],
        "initialized": bool(status["membership"]["members"]),
        "version": status["version"],
        "bug": status["bug"],
        "uptime": status["uptime"],
    }


def trouble(report: NodeReport) -> str:
    """What is wrong with a node, "" when nothing is."""
    if report.process == "gone":
        return f"does not run: {report.process_detail}"
    if report.process == "stopped":
        return "its process is stopped (SIGSTOP)"
    if report.host_error:
        heard = "" if report.answers else ", and the node does not answer"
        return f"host: {report.host_error}{heard}"
    if not report.answers:
        return f"runs, but does not answer: {report.silence}"
    if not report.initialized:
        return "belongs to no cluster yet"
    return ""


def problems(reports: Sequence[NodeReport]) -> list[str]:
    """What is wrong with the cluster, a sentence each; none when all nodes are well and follow one leader."""
    return [f"{report.node}: {trouble(report)}" for report in reports if trouble(report)] + disagreements(reports)


def disagreements(reports: Sequence[NodeReport]) -> list[str]:
    """Where nodes that are well by themselves do not follow one leader, a sentence each."""
    heard = [report for report in reports if report.answers and report.initialized]
    leaders = [report for report in heard if report.role == "leader"]
    if heard and not leaders:
        return ["no node leads"]
    if len(leaders) > 1:
        claims = ", ".join(f"{leader.node} in term {leader.term}" for leader in leaders)
        return [f"several nodes say that they lead: {claims}"]
    return [
        f"{one.node}: follows {one.leader or 'nobody'} in term {one.term}, but {lead.node} leads in {lead.term}"
        for lead in leaders
        for one in heard
        if (one.leader, one.term) != (lead.node, lead.term)
    ]


def summary(name: str, reports: Sequence[NodeReport]) -> str:
    """How the cluster is, in a sentence that goes with the table, which says what is wrong with each node."""
    unwell = sum(bool(trouble(report)) for report in reports)
    found = [f"{unwell} of {len(reports)} nodes {'is' if unwell == 1 else 'are'} not well"] if unwell else []
    found += disagreements(reports)
    return f"The cluster {name} is not well: {'; '.join(found)}." if found else f"The cluster {name} is well."


def rows(reports: Sequence[NodeReport]) -> list[tuple[str, ...]]:
    """The table for people, its head first."""
    head = ("node", "address", "role", "term", "applied", "version", "disk free", "clock", "")
    return [head, *(_row(report) for report in reports)]


def _row(report: NodeReport) -> tuple[str, ...]:
    version = " ".join(filter(None, (report.version, report.bundle[:8], f"bug {report.bug}" if report.bug else "")))
    return (
        report.node,
        report.address,
        report.role or "-",
        _shown(report.term),
        _shown(report.applied),
        version or "-",
        "-" if report.disk_free is None else size(report.disk_free),
        clock(report.clock_offset, report.clock_error),
        trouble(report),
    )


def _shown(number: int | None) -> str:
    return "-" if number is None else str(number)


def size(count: int) -> str:
    """Bytes for people."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"


def clock(offset: float | None, error: float | None) -> str:
    """How far a clock is off, for people; no more is said than is known."""
    if offset is None or error is None:
        return "-"
    if abs(offset) <= error:
        return f"within {_seconds(error)}"
    return f"{'+' if offset > 0 else '-'}{_seconds(abs(offset))}"


def _seconds(value: float) -> str:
    milliseconds = value * 1000
    if milliseconds < 1000:
        return f"{max(1, round(milliseconds))} ms"
    return f"{value:.1f} s" if value < 600 else f"{value:.0f} s"
