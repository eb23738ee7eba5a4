"""Check ``node-health``: nodes that died by themselves, and tracebacks in their logs. A planned kill is no finding."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raftbed.model import Verdict
from raftbed.store import RunDirectory, RunEvent

CHECKER = "node-health"
_LOUD = re.compile(
    r"^Traceback \(most recent call last\)|\bCRITICAL\b|^Fatal Python error|^panic: |^Segmentation fault"
)
_MOST_BYTES = 8 << 20  # of each end of a log; the middle of a larger one is passed over
_MOST_FINDINGS = 20
_MOST_LINES = 15


def check(run: RunDirectory) -> Verdict:
    """Judge a run directory."""
    logs = {node: run.node_file(node, "node.log") for node in run.plan().nodes}
    return judge(logs, run.events())


def judge(logs: dict[str, Path | None], events: Sequence[RunEvent]) -> Verdict:
    """Judge the nodes' logs (None: not fetched) and the controller's events."""
    findings: list[dict[str, Any]] = [
        {"node": str(event.detail["node"]), "what": event.message, "lines": [_line(event.detail.get("log", ""))]}
        for event in events
        if event.kind == "error" and "node" in event.detail
    ]
    missing = [node for node, path in logs.items() if path is None]
    for node, path in logs.items():
        if path is not None:
            findings += _loud_lines(node, path)
    details = {"findings": findings[:_MOST_FINDINGS], "count": len(findings), "missing_logs": missing}
    unread = f" The logs of {', '.join(missing)} are missing." if missing else ""
    if findings:
        nodes = sorted({finding["node"] for finding in findings})
        summary = f"{', '.join(nodes)}: {findings[0]['what']}"
        more = f" (and {len(findings) - 1} more findings)" if len(findings) > 1 else ""
        return Verdict(CHECKER, "invalid", f"{summary}{more}{unread}", details)
    if logs and len(missing) == len(logs):
        return Verdict(CHECKER, "unknown", "No node's log was fetched, so that none was read.", details)
    if missing:
        summary = f"No node is known to have died by itself, but not every log was read.{unread}"
        return Verdict(CHECKER, "unknown", summary, details)
    return Verdict(CHECKER, "valid", "No node died by itself, and no log holds a traceback.", details)


def _loud_lines(node: str, path: Path) -> list[dict[str, Any]]:
    lines = _both_ends(path)
    found = []
    for number, line in enumerate(lines):
        if _LOUD.search(line):
            quoted = [_line(text) for text in lines[max(0, number - 1) : number + _MOST_LINES]]
            what = "a traceback in its log" if line.startswith("Traceback") else f"its log says: {_line(line)}"
            found.append({"node": node, "what": what, "lines": quoted})
    return found


def _both_ends(path: Path) -> list[str]:
    with path.open("rb") as stream:
        content = stream.read(_MOST_BYTES)
        size = path.stat().st_size
        if size > 2 * _MOST_BYTES:
            stream.seek(size - _MOST_BYTES)
        content += stream.read(_MOST_BYTES)
    return content.decode(errors="replace").splitlines()


def _line(text: Any) -> str:
    return str(text).strip()[-500:]
