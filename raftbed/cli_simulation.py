"""The commands that work in virtual time: ``simulate``, ``campaign``, ``replay``, ``shrink``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from raftbed.cli_options import EXIT, JSON, MEMORY, STORE, TIME, is_file, naming, settings_of
from raftbed.console import Console

_Command = Callable[..., Any]
_LOAD = (
    click.option("--nodes", type=int, help="How many nodes.  [default: 5]"),
    click.option(
        "--time-limit", type=float, metavar="SECONDS", help="How long clients and faults work.  [default: 10]"
    ),
    click.option("--concurrency", metavar="N|Kn", help="How many clients; 2n means two per node.  [default: 2n]"),
    click.option("--rate", type=float, metavar="OPS", help="Operations per second in all; 0: no limit.  [default: 80]"),
    click.option("--keys", type=int, help="How many keys.  [default: 8]"),
    click.option("--faults", metavar="A,B|none", help="Kinds of fault, instead of the test's own."),
    click.option("--operation-timeout", type=float, metavar="SECONDS", help="How long a client waits.  [default: 2]"),
    click.option("--bug", metavar="NAME", help="Plant a bug in the nodes; the run should end invalid."),
    click.option("--real-nodes", is_flag=True, help="Whole nodes, with server and storage, not their cores alone."),
)


def _load(command: _Command) -> _Command:
    """The options that say what a simulated run is."""
    for option in reversed(_LOAD):
        command = option(command)
    return command


@click.command(short_help="Run a test in virtual time: the same seed, the same run.")
@click.argument("test", metavar="TEST|PLAN.toml")
@_load
@click.option("--seed", type=int, help="Decides everything that happens.  [default: drawn]")
@click.option("--messages", is_flag=True, help="Record every message between nodes, too.")
@click.option("--quiet", is_flag=True, help="Print the result only.")
@STORE
@JSON
@TIME
@MEMORY
def simulate(test: str, **options: Any) -> int:
    """Run a test in virtual time, check what it recorded, write the report.

    TEST is one of `raftbed list tests`, or a plan file. Nodes, clients, workload, faults and checks are those of
    `raftbed run`; disks, clocks and the network are simulated. `chaos-test` has every fault that the simulator has.
    """
    from raftbed import simulating

    settings = simulating.simulated(settings_of(test, options), real_nodes=options["real_nodes"])
    console = Console(quiet=options["quiet"], json=options["as_json"])
    request = simulating.SimulateRequest(
        settings=settings,
        store=options["store"],
        messages=options["messages"],
        time_limit=options["check_time_limit"],
        memory_limit=options["check_memory_limit"] << 20,
    )
    with naming(test if is_file(test) else ""):
        return EXIT[simulating.run_simulation(request, console)]


@click.command(short_help="Simulate many seeds, and tell what they found.")
@click.argument("test", metavar="TEST|PLAN.toml")
@_load
@click.option("--seeds", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="How many.")
@click.option("--first-seed", type=int, default=0, show_default=True, metavar="N", help="They count up from this one.")
@click.option("--jobs", type=click.IntRange(1, 256), metavar="N", help="Side by side.  [default: cores]")
@click.option("--keep-going", is_flag=True, help="Go on after a violation, and collect all.")
@click.option("--resume", is_flag=True, help="Go on where the same campaign stopped.")
@click.option("--quiet", is_flag=True, help="Print the result only.")
@STORE
@JSON
def campaign(test: str, **options: Any) -> int:
    """Simulate many seeds of a test side by side, and tell what they found.

    Stops at the first violation, which is kept as a schedule file for `raftbed replay` and `raftbed shrink`. Ctrl-C
    ends it after the seeds under way; what was found until then is kept, and --resume goes on.
    """
    import os

    from raftbed import campaigning, simulating

    console = Console(quiet=options["quiet"], json=options["as_json"])
    with naming(test if is_file(test) else ""):
        request = campaigning.CampaignRequest(
            settings=simulating.simulated(settings_of(test, options), real_nodes=options["real_nodes"]),
            first=options["first_seed"],
            count=options["seeds"],
            jobs=options["jobs"] or len(os.sched_getaffinity(0)),
            keep_going=options["keep_going"],
            resume=options["resume"],
            store=options["store"],
        )
        return EXIT[campaigning.run_campaign(request, console)]


_FILE = click.argument("file", type=click.Path(path_type=Path, readable=False))


@click.command(short_help="Repeat a violation that a campaign found.")
@_FILE
@STORE
@JSON
def replay(file: Path, store: Path, as_json: bool) -> int:
    """Repeat what a schedule file holds, and say whether it is the same.

    FILE was saved by `raftbed campaign` or `raftbed shrink`, or is the plan.json of a simulated run.
    """
    from raftbed import simulating

    return EXIT[simulating.run_replay(file, store, Console(json=as_json))]


@click.command(short_help="Make a violation small: fewer faults, operations, nodes.")
@_FILE
@click.option(
    "--seconds", type=click.FloatRange(1), default=120.0, show_default=True, help="How long to try; the best counts."
)
@STORE
@JSON
def shrink(file: Path, seconds: float, store: Path, as_json: bool) -> int:
    """Make a violation small, and report on the few steps that are left.

    FILE was saved by `raftbed campaign`. The result is kept beside it, as FILE.small.json.
    """
    from raftbed import simulating

    return EXIT[simulating.run_shrink(file, store, Console(json=as_json), seconds=seconds)]
