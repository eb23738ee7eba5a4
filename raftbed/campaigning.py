"""The ``campaign`` command: many seeds with progress and Ctrl-C, and the table at the end."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftbed import plan as planning
from raftbed.console import Console
from raftbed.model import SECOND, Validity
from raftbed.sim.campaign import Campaign, Summary
from raftbed.sim.rare_points import RARE

_MOST_SEEDS_NAMED = 8
_COVERAGE = {
    "leaderships": "leaderships",
    "candidacies": "candidacies",
    "truncations": "logs cut short after a conflict",
    "boots": "starts of a node",
    "snapshots": "snapshots",
    "installs": "snapshots installed",
    "membership_changes": "changes of membership",
    "transfers": "transfers of leadership",
}


@dataclass(frozen=True, slots=True)
class CampaignRequest:
    """What the user asked of ``raftbed campaign``.

    Attributes:
        settings: of each run.
        first: the first seed.
        count: how many.
        jobs: processes.
        keep_going: go on after a violation.
        resume: take over what an earlier one has found.
        store: where its files are kept.
    """

    settings: planning.PlanSettings
    first: int
    count: int
    jobs: int
    keep_going: bool
    resume: bool
    store: Path


def run_campaign(request: CampaignRequest, console: Console) -> Validity:
    """Run it and show what it found.

    Raises:
        RaftbedError: it could not be run.
    """
    planning.make_plan(request.settings, seed=request.first)  # what is wrong with it is wrong with every seed
    campaign = Campaign(
        request.settings,
        first=request.first,
        count=request.count,
        jobs=request.jobs,
        keep_going=request.keep_going,
        store=request.store,
    )
    with _interrupts(campaign.stop, console):
        summary = campaign.run(resume=request.resume, progress=lambda so_far, took: _progress(console, so_far, took))
    for line in lines(summary):
        console.result(line)
    console.result(f"  results: {campaign.directory}")
    if summary.interrupted:
        console.say("Interrupted; the same command with --resume goes on.")
    if console.json:
        console.emit(document(summary, campaign.directory))
    return summary.validity


def _progress(console: Console, summary: Summary, took: float) -> None:
    done = len(summary.results)
    bad = sum(result.validity == "invalid" for result in summary.results.values())
    rate = done / took if took else 0.0
    left = (summary.wanted - done) / rate if rate else 0.0
    console.progress(
        f"{done} of {summary.wanted} seeds, {rate:.1f}/s, {bad} violations, about {left / 60:.0f} min left"
    )


def lines(summary: Summary) -> Iterator[str]:
    """What a campaign has shown, as text."""
    results = list(summary.results.values())
    counts = {kind: sum(result.validity == kind for result in results) for kind in ("valid", "invalid", "unknown")}
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    yield f"{summary.validity.upper()}  {len(results)} of {summary.wanted} seeds: {said}"
    hours = sum(result.duration for result in results) / SECOND / 3600
    cpu = sum(result.cpu for result in results)
    yield f"  simulated    {hours:.2f} hours, in {cpu:.0f} seconds of a processor"
    yield f"  operations   {summary.total('ok')} ok, {summary.total('fail')} failed, {summary.total('info')} unknown"
    yield f"  messages     {summary.total('messages')}"
    faults = ", ".join(f"{kind} {count}" for kind, count in sorted(summary.faults().items()))
    yield f"  faults       {faults or 'none'}"
    coverage = ", ".join(f"{summary.total(name)} {said}" for name, said in _COVERAGE.items())
    yield f"  coverage     {coverage}"
    yield from _unusual(summary)
    reasons: dict[str, int] = {}
    for result in results:
        if result.reason:
            key = result.reason.partition(":")[0]
            reasons[key] = reasons.get(key, 0) + 1
    if reasons:
        yield "  unknown      " + ", ".join(f"{count} by {name}" for name, count in sorted(reasons.items()))
    for cause, found in summary.causes().items():
        seeds = ", ".join(str(result.seed) for result in found[:_MOST_SEEDS_NAMED])
        more = " ..." if len(found) > _MOST_SEEDS_NAMED else ""
        yield f"  ✗ {len(found)} × {cause}"
        yield f"      seeds {seeds}{more}; repeat one: raftbed replay {found[0].file}"


def _unusual(summary: Summary) -> Iterator[str]:
    """What was unusual about the nodes, where anything was."""
    results = summary.results.values()
    own = sum(result.counts.get("own_options", 0) > 0 for result in results)
    points = [name for name in summary.names() if name.startswith(RARE)]
    if own:
        yield f"  own options  in {own} seeds"
    if points:
        seeds = {name: sum(result.counts.get(name, 0) > 0 for result in results) for name in points}
        said = (f"{name.removeprefix(RARE)} {summary.total(name)} in {seeds[name]} seeds" for name in points)
        yield f"  rare points  {', '.join(said)}"


def document(summary: Summary, directory: Path) -> dict[str, Any]:
    """The same for ``--json``."""
    results = list(summary.results.values())
    return {
        "validity": summary.validity,
        "interrupted": summary.interrupted,
        "directory": str(directory),
        "seeds": len(results),
        "wanted": summary.wanted,
        "simulated_seconds": sum(result.duration for result in results) / SECOND,
        "cpu_seconds": sum(result.cpu for result in results),
        "counts": {name: summary.total(name) for name in summary.names()},
        "faults": dict(sorted(summary.faults().items())),
        "violations": [
            {"cause": cause, "seeds": [result.seed for result in found], "file": found[0].file}
            for cause, found in summary.causes().items()
        ],
        "unknown": [{"seed": result.seed, "reason": result.reason} for result in results if result.reason],
    }


@contextlib.contextmanager
def _interrupts(stop: Callable[[], None], console: Console) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the campaign after the seeds that are under way."""

    def take(_number: int, _frame: Any) -> None:
        stop()
        console.say("Stopping after the seeds under way.")

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
