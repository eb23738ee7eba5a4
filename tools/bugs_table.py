"""Write the tables of docs/bugs.md: ``python tools/bugs_table.py [RESULTS.json ...]``.

RESULTS.json are outputs of ``raftbed bugs --json``, in simulation or with ``--live``. A table for which there are
none is left as it is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raftbed import bugs

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "bugs.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def catalogue() -> str:
    """All bugs: what is wrong with them."""
    loaded = [bugs.load(name) for name in bugs.names()]
    return table(
        ("bug", "the mistake", "breaks", "shows with", "test", "seen in"),
        [(f"`{bug.name}`", bug.mistake, bug.breaks, bug.faults, bug.test, bug.seen_in) for bug in loaded],
    )


def results(hunts: Iterable[Mapping[str, Any]]) -> str:
    """What hunts on real hosts found."""
    rows = [
        (
            f"`{hunt['bug']}`",
            "yes" if hunt["found"] else "could not run" if hunt["error"] else "no",
            ", ".join(hunt["by"]) or "-",
            str(hunt["seeds"]),
            f"{hunt['seconds']:.0f}",
            str(hunt["operations"]),
        )
        for hunt in sorted(hunts, key=lambda hunt: hunt["bug"])
    ]
    return table(("bug", "found", "by", "runs", "seconds", "operations"), rows)


def simulated(hunts: Iterable[Mapping[str, Any]]) -> str:
    """What hunts in simulation found."""
    rows = []
    for hunt in sorted(hunts, key=lambda hunt: hunt["bug"]):
        by = [name for name in hunt["by"] if name != "raft-invariants"] + hunt["invariants"]
        by_clients, seconds = ", ".join(hunt["by_clients"]), hunt["clients_seconds"]
        rows.append(
            (
                f"`{hunt['bug']}`",
                "yes" if hunt["found"] else "no",
                str(hunt["seeds"]),
                f"{hunt['seconds']:.1f}",
                str(hunt["operations"]),
                f"{by_clients} ({seconds:.1f} s)" if by_clients else f"no, in {seconds:.0f} s",
                ", ".join(by) or "-",
                _size(hunt.get("shrunk")),
            )
        )
    head = ("bug", "found", "seeds", "CPU seconds", "operations", "seen by clients", "by", "shrunk to")
    return table(head, rows)


def _size(shrunk: Mapping[str, int] | None) -> str:
    return f"{shrunk['faults']} / {shrunk['operations']} / {shrunk['nodes']}" if shrunk else "-"


def replaced(text: str, name: str, content: str) -> str:
    """The document with what stands between the marks of `name` replaced."""
    marks = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    new, count = re.subn(f"({marks[0]}).*?({marks[1]})", lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{DOCUMENT}: has no marks {name!r}.")
    return new


def main() -> None:
    """Rewrite the document."""
    text = replaced(DOCUMENT.read_text(), "catalogue", catalogue())
    hunts = [hunt for path in sys.argv[1:] for hunt in json.loads(Path(path).read_text())["bugs"]]
    in_simulation = [hunt for hunt in hunts if "by_clients" in hunt]
    live = [hunt for hunt in hunts if "by_clients" not in hunt]
    if in_simulation:
        text = replaced(text, "simulated", simulated(in_simulation))
    if live:
        text = replaced(text, "results", results(live))
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
