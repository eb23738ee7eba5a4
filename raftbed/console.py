"""What the command line shows: the progress line, verdicts as text, errors as one sentence."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from raftbed.errors import RaftbedError
from raftbed.output import OutputStream, visible, visible_json

if TYPE_CHECKING:
    from raftbed.model import FaultStep, Plan, Verdict
    from raftbed.store import Results
    from raftbed.watching import Progress

OUTPUT_SCHEMA = "raftbed.output/1"
"""Schema of everything that ``--json`` prints; docs/formats.md describes it."""

_MOST_VIOLATIONS = 3
_ENDED = {"fail": "failed", "info": "unknown"}
_MARKS = {"valid": ("✓", "32"), "invalid": ("✗", "31"), "unknown": ("?", "33")}


class Console:
    """Where messages go: results to standard output, everything else to standard error.

    What a terminal would obey is shown as an escape, whoever said it; only what stands here moves or colours anything.

    Parameters:
        quiet: say nothing but results and errors.
        json: results are JSON; implies quiet.
    """

    def __init__(self, *, quiet: bool = False, json: bool = False, out: TextIO | None = None) -> None:
        self.json = json
        self.quiet = quiet or json
        self._out = out or sys.stdout
        self._err = sys.stderr
        self._live = self._err.isatty() and not self.quiet
        self._colour = self._out.isatty()
        self._line_shown = False

    def say(self, text: str) -> None:
        """A message to a person, on standard error."""
        if not self.quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """A message that even a quiet console shows."""
        self._clear()
        print(visible(text), file=self._err, flush=True)

    def result(self, text: str, *, before: str = "") -> None:
        """A line of the result, on standard output; nothing when the output is JSON.

        Parameters:
            text: what it says.
            before: what `mark` or `strong` made, to stand before it with its colours.
        """
        self._clear()
        if not self.json:
            print(before + visible(text), file=self._out, flush=True)

    def emit(self, document: dict[str, Any]) -> None:
        """The result as JSON, with its schema first."""
        document = {"schema": OUTPUT_SCHEMA, **document}
        try:
            text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
        except UnicodeEncodeError:  # the name of a file that is not UTF-8, which Python has as lone surrogates
            import json

            text = json.dumps(msgspec.to_builtins(document), indent=2)
        utf8 = (self._out.encoding or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")
        print(visible_json(text, ascii_only=not utf8), file=self._out, flush=True)

    def error(self, error: RaftbedError) -> None:
        """One readable sentence, and the remedy on a line of its own."""
        self.warn(f"raftbed: {error.message}")
        if error.remedy:
            self.warn(f"  {error.remedy}")

    @property
    def is_unread(self) -> bool:
        """Whoever read the results has gone away; a command without an end should find its own then."""
        return isinstance(self._out, OutputStream) and self._out.is_unread

    @property
    def live(self) -> bool:
        """There is a terminal to redraw a progress line on."""
        return self._live

    def progress(self, text: str) -> None:
        """Redraw the progress line, cut to the terminal's width."""
        if self._live:
            import shutil

            width = shutil.get_terminal_size().columns
            line = visible(text).replace("\n", " ")
            print(f"\r\x1b[2K{line[: width - 1]}", end="", file=self._err, flush=True)
            self._line_shown = True

    def mark(self, validity: str) -> str:
        """The sign of a verdict, coloured where there is a terminal."""
        sign, colour = _MARKS[validity]
        return f"\x1b[{colour}m{sign}\x1b[0m" if self._colour else sign

    def strong(self, validity: str) -> str:
        """The name of a verdict in capitals, coloured where there is a terminal."""
        return f"\x1b[1;{_MARKS[validity][1]}m{validity.upper()}\x1b[0m" if self._colour else validity.upper()

    def _clear(self) -> None:
        if self._line_shown:
            print("\r\x1b[2K", end="", file=self._err, flush=True)
            self._line_shown = False


def show_results(console: Console, results: Results) -> None:
    """The verdicts on one run or history: the overall one first, then a line a check."""
    console.result(f"  {results.run}", before=console.strong(results.validity))
    for verdict in results.verdicts:
        console.result(f" {verdict.checker}: {verdict.summary}", before=f"  {console.mark(verdict.validity)}")
        for line in _witness_lines(verdict):
            console.result(f"      {line}")


def _witness_lines(verdict: Verdict) -> list[str]:
    lines = []
    for violation in verdict.details.get("violations", [])[:_MOST_VIOLATIONS]:
        lines += [f"{violation['invariant']}: {violation['sentence']}"]
        lines += [f"  {record['file']}:{record['line']}: {record['text'][:160]}" for record in violation["records"]]
    witness = verdict.details.get("witness")
    if not witness:
        return lines
    for op in witness.get("operations", []):
        start, end = f"{op['call'] / 1e9:.6f}", op.get("return")
        when = f"{start} s to {end / 1e9:.6f} s" if end is not None else f"{start} s, no answer"
        node = f" at {op['node']}" if op.get("node") else ""
        lines.append(f"{when}: client {op['process']} {op['text']}{node}  [{_ENDED.get(op['type'], op['type'])}]")
    return lines


def progress_line(progress: Progress) -> str:
    """One line: where the run is, how fast it goes, what strikes it, who leads."""
    parts = [f"{progress.elapsed:5.1f} s", progress.phase]
    if progress.time_limit and progress.phase == "clients":
        parts[1] = f"of {progress.time_limit:g} s"
    parts.append(f"{progress.ok_rate:.0f} ok/s")
    parts.append(f"ok {progress.ok} fail {progress.fail} unknown {progress.info}")
    parts.append(f"leader {progress.leader or '-'}")
    parts.append(", ".join(progress.faults) or "no fault")
    return "  ".join(parts)


def show_plan(plan: Plan, print_line: Callable[[str], None]) -> None:
    """Plan and schedule as text, for ``--dry-run``."""
    print_line(f"test           {plan.test} (workload {plan.workload}, system {plan.system}, hosts {plan.hosts})")
    print_line(f"nodes          {' '.join(plan.nodes)}")
    print_line(f"seed           {plan.seed}")
    rate = f"{plan.rate:g} operations/s" if plan.rate else "as fast as they can"
    print_line(f"load           {plan.concurrency} clients, {rate}, {plan.keys} keys, for {plan.time_limit:g} s")
    print_line(f"time-outs      operation {plan.operation_timeout:g} s, recovery {plan.recovery_timeout:g} s")
    print_line(f"checks         {', '.join(plan.checks)}")
    options = ", ".join(f"{name}={value}" for name, value in plan.node_options.items())
    print_line(f"node options   {options or 'defaults'}")
    for node, own in plan.own_options.items():
        print_line(f"  of {node:<10} {', '.join(f'{name}={value}' for name, value in own.items())}")
    if plan.rare_points:
        print_line(f"rare points    {', '.join(f'{name} {chance:g}' for name, chance in plan.rare_points.items())}")
    if plan.bug:
        print_line(f"planted bug    {plan.bug}")
    print_line("schedule" if plan.schedule else "schedule       no faults")
    for step in plan.schedule:
        print_line(f"  {schedule_line(step)}")


def schedule_line(step: FaultStep) -> str:
    """One planned fault as text."""
    times = f"{step.at:6.2f} s to {step.until:6.2f} s"
    return f"{step.id}  {times}  {step.kind} {step.shape:<18} [{' '.join(step.order)}]  {step.why}".rstrip()


def table(rows: Sequence[Sequence[str]], print_line: Callable[[str], None]) -> None:
    """Columns of text, the last one ragged."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print_line("  ".join([*cells, row[-1]]).rstrip())


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        """How many."""
        return time.monotonic() - self._start
