"""The ``bugs`` command: in simulation, and with ``--live`` on real hosts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from raftbed.cli_options import JSON, STORE
from raftbed.console import Console
from raftbed.errors import EXIT_COULD_NOT_RUN, EXIT_INVALID, EXIT_VALID, UsageError

_SIMULATED_ONLY = ("budget", "jobs", "clients", "shrink")
_LIVE_SEEDS = 3
_LIVE_TIME_LIMIT = 20.0


@click.command(name="bugs", short_help="Hunt the planted bugs: which of them does the test bed find?")
@click.argument("names", nargs=-1, metavar="[BUG]...")
@click.option("--live", is_flag=True, help="On real hosts, and not in simulation.")
@click.option(
    "--seeds", type=click.IntRange(1), metavar="N", help="Runs that a bug has at most.  [default: no limit; live: 3]"
)
@click.option("--first-seed", type=click.IntRange(0), metavar="N", help="Of its first run.  [default: 0; live: 1]")
@click.option("--time-limit", type=float, metavar="SECONDS", help="Of each run.  [default: 10; live: 20]")
@click.option(
    "--budget", type=click.FloatRange(1), metavar="SECONDS", help="Of a processor that a bug has.  [default: 60]"
)
@click.option("--jobs", type=click.IntRange(1, 256), metavar="N", help="Runs side by side.  [default: cores]")
@click.option("--clients", is_flag=True, help="Go on within the budget until clients see the bug, too.")
@click.option(
    "--shrink", type=click.FloatRange(1), metavar="SECONDS", help="Of a processor to make each violation small."
)
@STORE
@JSON
def bugs_command(names: tuple[str, ...], live: bool, store: Path, as_json: bool, **options: Any) -> int:
    """Plant each BUG (default: all) and run its scenario until a run ends invalid; print the table.

    Ends with 0 when all were found, with 1 when one was not.
    """
    given = [name for name in _SIMULATED_ONLY if options[name]]
    if live and given:
        raise UsageError(f"--{given[0]} is for hunts in simulation.", remedy="Leave it away, or leave --live away.")
    console = Console(json=as_json)
    hunt_them = _live if live else _simulated
    hunts, rows = hunt_them(names, store, options, console)
    from raftbed.console import table

    found = sum(hunt.found for hunt in hunts)
    table(rows, console.result)
    console.result(f"{found} of {len(hunts)} were found.")
    if as_json:
        console.emit({"bugs": hunts, "found": found})
    if any(getattr(hunt, "error", "") for hunt in hunts):
        return EXIT_COULD_NOT_RUN
    return EXIT_VALID if found == len(hunts) else EXIT_INVALID


_Hunted = tuple[Sequence[Any], Sequence[tuple[str, ...]]]


def _simulated(names: Sequence[str], store: Path, options: Mapping[str, Any], console: Console) -> _Hunted:
    import os

    from raftbed.sim import hunting

    request = hunting.HuntRequest(
        names,
        store,
        seeds=options["seeds"],
        first_seed=options["first_seed"] or 0,
        time_limit=options["time_limit"],
        budget=options["budget"] or 60.0,
        jobs=options["jobs"] or len(os.sched_getaffinity(0)),
        clients=options["clients"],
        shrink=options["shrink"] or 0.0,
    )

    def progress(hunt: hunting.Hunt) -> None:
        console.progress(f"{hunt.bug}: {hunt.clients_seeds} seeds, {hunt.clients_seconds:.0f} s of a processor")

    hunts = hunting.hunt_all(request, progress, _teller(console))
    return hunts, hunting.rows(hunts)


def _live(names: Sequence[str], store: Path, options: Mapping[str, Any], console: Console) -> _Hunted:
    from raftbed import hunting, listing

    listing.tidy(store)
    first_seed = options["first_seed"] if options["first_seed"] is not None else 1
    request = hunting.HuntRequest(
        names, store, options["seeds"] or _LIVE_SEEDS, first_seed, options["time_limit"] or _LIVE_TIME_LIMIT
    )
    hunts = hunting.hunt_all(request, _teller(console))
    return hunts, hunting.rows(hunts)


def _teller(console: Console) -> Callable[[Any], None]:
    def ended(hunt: Any) -> None:
        console.say(f"{hunt.bug}: {hunt.how or getattr(hunt, 'error', '') or 'not found'}")

    return ended
