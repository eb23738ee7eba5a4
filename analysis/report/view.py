"""What the report shows, gathered from a run directory into plain values that the template only has to lay out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from raftbed.analysis.operations import Span, Window, spans, windows
from raftbed.errors import RaftbedError
from raftbed.model import SECOND, Plan, Verdict
from raftbed.store import Manifest, Results, RunDirectory, RunEvent, StatusSample

LOG_TAIL_LINES = 25
_LOG_TAIL_BYTES = 64 << 10
_HEADLINES = {
    "valid": "Every check passed: nothing was seen that a correct system could not have done.",
    "unknown": "This run does not show whether the system keeps its promises.",
}
_NOT_CHECKED: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "what un-synced writes would have survived a power failure (a kill keeps what the kernel has)",
        frozenset({"power"}),
    ),
    (
        "clocks, slow or lossy networks, and slow or full disks: no such fault was injected",
        frozenset({"clock", "loss", "duplicate", "delay", "clog", "slow-disk", "full-disk", "bad-disk"}),
    ),
    ("anything that these clients did not do, and anything before or after the run", frozenset()),
)
"""What a run says nothing about, and the kinds of fault by which it would."""


@dataclass(slots=True)
class View:
    """A run, ready to be shown. Whatever could not be read is empty, and named in `gaps`.

    Attributes:
        run: its name.
        plan, manifest, results: None where they are missing.
        operations, windows, status, events: of the run.
        gaps: one sentence for each thing that is missing or unreadable.
    """

    run: str
    path: Path
    plan: Plan | None = None
    manifest: Manifest | None = None
    results: Results | None = None
    operations: list[Span] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    status: list[StatusSample] = field(default_factory=list)
    events: list[RunEvent] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)

    # -- the head of the page -------------------------------------------------------------------------------------

    @property
    def validity(self) -> str:
        """The verdict, "unknown" for a run that was not checked."""
        return self.results.validity if self.results else "unknown"

    @property
    def headline(self) -> str:
        """One sentence under the verdict."""
        if self.results is None:
            return "This run has not been checked: `raftbed check` does it."
        if self.validity == "invalid":
            broken = next(verdict for verdict in self.results.verdicts if verdict.validity == "invalid")
            return f"A promise was broken. {broken.summary}"
        if self.validity == "unknown":
            open_ = next((verdict for verdict in self.results.verdicts if verdict.validity == "unknown"), None)
            return f"{_HEADLINES['unknown']} {open_.summary if open_ else ''}".strip()
        return _HEADLINES["valid"]

    @property
    def facts(self) -> list[tuple[str, str]]:
        """What one wants to know first, as pairs of name and value."""
        facts: list[tuple[str, str]] = []
        if self.plan:
            plan = self.plan
            facts += [("test", plan.test), ("system", plan.system), ("nodes", str(len(plan.nodes)))]
            facts += [("seed", str(plan.seed)), ("clients", f"{plan.concurrency} for {plan.time_limit:g} s")]
            facts += [("faults", ", ".join(plan.faults) or "none")]
            if plan.hosts == "simulated-real-nodes":
                facts.append(("simulated", "whole nodes in virtual time, with simulated disks, clocks and network"))
            elif plan.hosts == "simulated":
                facts.append(("simulated", "in virtual time, with simulated disks, clocks and network"))
            if plan.bug:
                facts.append(("planted bug", plan.bug))
        if self.manifest:
            facts.append(("started", _readable(self.manifest.started)))
            if self.manifest.duration is not None:
                facts.append(("took", f"{self.manifest.duration:.1f} s"))
            if self.manifest.state != "ended":
                cut_off = self.manifest.state in ("running", "prepared")
                facts.append(("state", "cut off" if cut_off else self.manifest.state))
        return facts

    @property
    def not_checked(self) -> list[str]:
        """What this run says nothing about."""
        missing = [sentence for sentence, kinds in _NOT_CHECKED if not kinds & self.kinds]
        if self.plan is not None:
            missing += [f"{kind} faults: the plan has none" for kind in ("partition", "kill") if kind not in self.kinds]
        return missing

    @property
    def kinds(self) -> set[str]:
        """The kinds of fault that were planned."""
        return {window.step.kind for window in self.windows}

    # -- verdicts -------------------------------------------------------------------------------------------------

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """Those of all checks, the worst first."""
        order = {"invalid": 0, "unknown": 1, "valid": 2}
        return sorted(self.results.verdicts, key=lambda verdict: order[verdict.validity]) if self.results else ()

    def details(self, checker: str) -> dict[str, Any]:
        """The details of one check's verdict; empty where it has none."""
        return next((dict(verdict.details) for verdict in self.verdicts if verdict.checker == checker), {})

    @property
    def witness(self) -> dict[str, Any] | None:
        """The operations that prove a violation of linearizability."""
        witness = self.details("linearizable").get("witness")
        return witness if isinstance(witness, dict) and witness.get("operations") else None

    @property
    def violations(self) -> list[dict[str, Any]]:
        """Broken invariants of Raft, each with the records that contradict each other."""
        return list(self.details("raft-invariants").get("violations", []))

    @property
    def keys(self) -> list[dict[str, Any]]:
        """What was found on each key, failing ones first."""
        order = {"invalid": 0, "unknown": 1, "valid": 2}
        keys = self.details("linearizable").get("keys", {})
        rows = [{"key": key, **row} for key, row in keys.items()]
        return sorted(rows, key=lambda row: (order.get(row.get("validity", ""), 3), natural(row["key"])))

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def begin(self) -> int:
        """When clients began, in nanoseconds of the run."""
        return next((event.time for event in self.events if event.message == "clients"), self._first)

    @property
    def _first(self) -> int:
        return self.operations[0].call if self.operations else 0

    @property
    def end(self) -> int:
        """The last moment that the page draws."""
        ends = [span.end for span in self.operations if span.end is not None]
        ends += [window.healed for window in self.windows if window.healed is not None]
        return max(ends, default=self.begin + SECOND)

    @property
    def notable_events(self) -> list[RunEvent]:
        """Stalls, warnings and errors of the controller."""
        return [event for event in self.events if event.kind != "phase"]

    @property
    def phases(self) -> list[RunEvent]:
        """The phases that the run went through."""
        return [event for event in self.events if event.kind == "phase"]

    def log_tails(self) -> list[tuple[str, str]]:
        """The end of each node's log."""
        tails = []
        for node in self.plan.nodes if self.plan else ():
            path = self.path / "nodes" / node / "node.log"
            try:
                with path.open("rb") as stream:
                    stream.seek(max(0, path.stat().st_size - _LOG_TAIL_BYTES))
                    lines = stream.read().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:]
            except OSError:
                continue
            tails.append((node, "\n".join(line[:500] for line in lines)))
        return tails


def gather(run: RunDirectory) -> View:
    """Read all that a run directory holds; what cannot be read becomes a sentence in `View.gaps`."""
    view = View(f"{run.path.parent.name}/{run.path.name}", run.path)

    def attempt(what: str, read: Any, default: Any) -> Any:
        try:
            return read()
        except (RaftbedError, OSError) as error:
            view.gaps.append(f"The {what} could not be read: {error}")
            return default

    view.manifest = attempt("manifest", run.manifest, None)
    view.plan = attempt("plan", run.plan, None)
    view.results = attempt("results", run.results, None)
    view.operations = spans(attempt("history", run.history, []))
    ledger = attempt("fault ledger", run.faults, [])
    view.windows = windows(view.plan.schedule if view.plan else (), ledger)
    view.status = attempt("status samples", run.status, [])
    view.events = attempt("events of the run", run.events, [])
    if view.manifest is not None and view.manifest.state in ("running", "prepared"):
        view.gaps.append("The controller was cut off: what follows is what it had recorded until then.")
    return view


def _readable(moment: str) -> str:
    """An ISO 8601 time in a form for people."""
    try:
        read = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return f"{read:%Y-%m-%d %H:%M:%S} {read.tzname() or ''}".strip()


def natural(key: Any) -> tuple[int, str, str]:
    """Sorts r2 before r10."""
    text = str(key)
    digits = text[len(text.rstrip("0123456789")) :].lstrip("0")
    return (len(digits), digits, text)  # the order of numbers; Python refuses to make one of more than 4,300 digits


def script_safe(value: Any) -> str:
    """JSON that can stand within a script element whatever it holds."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
