"""Check ``raft-invariants``: the traces of all nodes against what Raft promises (docs/raft-invariants.md).

Theory of operation
-------------------
Each trace is read once, in its own order; traces are never merged, because nothing relates the clocks of two nodes. A
node's reader (node.py) follows that node's log and judges what a node promises alone. What it says about the cluster
goes to one `Evidence` (evidence.py), keyed by terms and indexes, where facts of different nodes meet. A log is kept as
runs of terms that share their beginnings (logs.py), so that the log with which a leader began, or with which a node
left a term, costs a few words.

Missing records make the check weaker, never wrong: where they are missing is noticed (records are numbered), and what
could only be judged with them is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raftbed.analysis.raft_invariants.evidence import Evidence
from raftbed.analysis.raft_invariants.findings import Violation, unpack
from raftbed.analysis.raft_invariants.node import NodeTrace
from raftbed.analysis.raft_invariants.records import Foreign, Record, line_of, read_trace, taken_records
from raftbed.model import VALID, Verdict
from raftbed.store import RunDirectory

CHECKER = "raft-invariants"
FILE = "trace.jsonl"

__all__ = ["CHECKER", "FILE", "check", "judge"]


Trace = Path | Sequence[Record]
"""A node's trace: a file, or its records."""


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory by the traces that were fetched from its nodes.

    Traces that are at hand without a file are judged as they are, which saves writing and reading them. Only a verdict
    of *valid* is taken from that: any other is to show lines of files, so that it is found once more, in those.
    """
    nodes = run.plan().nodes
    at_hand = {node: taken_records(run.trace_records(node)) for node in nodes}
    known = {node: records for node, records in at_hand.items() if records is not None}
    if len(known) == len(nodes):
        verdict = judge(known)
        if verdict.validity == VALID:
            return verdict
    return judge({node: run.node_file(node, FILE) for node in nodes})


def judge(traces: Mapping[str, Trace | None]) -> Verdict:
    """Judge the traces of nodes; None: there is none of that node."""
    evidence = Evidence()
    nodes: dict[str, NodeTrace] = {}
    missing = {node: "there is no trace" for node, trace in traces.items() if trace is None}
    for number, (name, trace) in enumerate(traces.items()):
        if trace is None:
            continue
        node = NodeTrace(name, number, evidence)
        try:
            for line, record in _numbered(trace):
                node.take(line, record)
        except OSError as error:
            missing[name] = f"its trace could not be read: {error.strerror or error}"
            node.take(0, None)  # whatever follows is not known
        node.finish()
        if node.records:
            nodes[name] = node
        else:
            missing.setdefault(name, "its trace is empty")
            evidence.witnesses.pop(name)
    evidence.judge()
    return _verdict(evidence, nodes, missing, traces)


def _numbered(trace: Trace) -> Iterable[tuple[int, Record | Foreign | None]]:
    return read_trace(trace) if isinstance(trace, Path) else enumerate(trace, 1)


def _verdict(
    evidence: Evidence, nodes: Mapping[str, NodeTrace], missing: Mapping[str, str], traces: Mapping[str, Trace | None]
) -> Verdict:
    findings = evidence.findings
    details: dict[str, Any] = {
        "violations": [_shown(violation, traces) for violation in findings.kept],
        "counts": dict(findings.counts),
        "nodes": {
            name: {
                "records": node.records,
                "entries": node.entries,
                "boots": node.boots,
                "unreadable_lines": node.unreadable,
                "is_whole": node.is_whole,
            }
            for name, node in nodes.items()
        },
        "missing": dict(missing),
        "terms_with_a_leader": evidence.leader_count,
        "terms_with_commits": evidence.commit_count,
        "entries": evidence.entries.count,
    }
    seen = _seen(evidence, nodes)
    weaker = _weaker(nodes, missing)
    if findings.kept:
        first, count = findings.kept[0], findings.counts.total()
        more = f" (and {count - 1} more)" if count > 1 else ""
        return Verdict(CHECKER, "invalid", f"{first.invariant}: {first.sentence}{more}", details)
    if not nodes:
        return Verdict(CHECKER, "unknown", f"No trace could be read, so that nothing was judged.{weaker}", details)
    if not evidence.commit_count:
        summary = f"The traces show nothing that was committed, so that there was nothing to judge: {seen}.{weaker}"
        return Verdict(CHECKER, "unknown", summary, details)
    return Verdict(CHECKER, "valid", f"All invariants hold in {seen}.{weaker}", details)


def _seen(evidence: Evidence, nodes: Mapping[str, NodeTrace]) -> str:
    records = sum(node.records for node in nodes.values())
    starts = sum(node.boots for node in nodes.values())
    return (
        f"{records} records of {len(nodes)} nodes ({starts} starts, {evidence.leader_count} terms with a leader, "
        f"{evidence.entries.count} entries)"
    )


def _weaker(nodes: Mapping[str, NodeTrace], missing: Mapping[str, str]) -> str:
    """What makes the check weaker than it could be, as sentences to append."""
    said = [f"{name}: {why}" for name, why in missing.items()]
    said += [
        f"{name}: parts are missing" + (f", {node.unreadable} lines are unreadable" if node.unreadable else "")
        for name, node in nodes.items()
        if not node.is_whole and name not in missing
    ]
    return f" Less was seen than there was ({'; '.join(said)})." if said else ""


def _shown(violation: Violation, traces: Mapping[str, Trace | None]) -> dict[str, Any]:
    """A violation with its records, for the report and for people."""
    names = list(traces)
    records = []
    for place in dict.fromkeys(violation.places):
        number, line = unpack(place)
        path = traces[names[number]]
        if isinstance(path, Path) and line:
            records.append({"node": names[number], "file": str(path), "line": line, "text": line_of(path, line)})
    return {"invariant": violation.invariant, "sentence": violation.sentence, "records": records}
