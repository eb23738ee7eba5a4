"""The experiments by which the Raft node is judged, on loopback. Run as ``python benchmarks/raft_experiments.py NAME``.

    leader-change   64 clients with sessions while the leader changes: nothing lost or done twice, soon back
    large-state     200 MB of state: snapshot, transfer to a joiner, restart; memory, and no election, under load
    soak            `raftbed run` with partitions and kills at full rate: valid, and flat memory of the nodes
    steady          three nodes at full load without faults: flat memory
    idle            CPU of five nodes that have nothing to do

Each prints what it measured, and ends with exit code 0 when its bounds hold, 1 when not. Data is in a temporary
directory that is removed at the end.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cluster import large_state, leader_change, soak
from cluster.nodes import Nodes
from raft_cluster import idle_cpu, measure


def leader_changes(directory: Path, options: argparse.Namespace) -> bool:
    """Kills and transfers, with three nodes and with five."""
    good, bound = True, leader_change.BOUND
    changes = ["kill", "transfer"] * options.rounds
    print("| nodes | change | writes/s before | longest gap s | all clients back s |")
    print("| ---: | --- | ---: | ---: | ---: |")
    for size in options.sizes:
        outcome = leader_change.run(directory, size, options.clients, changes)
        for change in outcome.changes:
            held = max(change.gap, change.everyone) <= bound
            good = good and held
            row = f"| {size} | {change.how} | {change.rate:,.0f} | {change.gap:.2f} | {change.everyone:.2f} |"
            print(row + ("" if held else " <--"))
        print(
            f"{size} nodes: {outcome.writes:,} writes acknowledged, {outcome.repeated} came twice and were executed "
            f"once, {len(outcome.wrong)} wrong (bound for the gap: {bound:g} s)",
            flush=True,
        )
        for what in outcome.wrong[:10]:
            print(f"  {what}")
        good = good and not outcome.wrong
    return good


def large_states(directory: Path, options: argparse.Namespace) -> bool:
    """Snapshot, transfer and restart with much state."""
    return large_state.run(directory, options.megabytes, options.clients)


def soaks(directory: Path, options: argparse.Namespace) -> bool:
    """Minutes of faults at full load."""
    return soak.run(options.keep or directory, options.minutes, options.clients, options.seed)


def steady(directory: Path, options: argparse.Namespace) -> bool:
    """Memory under full load without faults: processes that live long."""
    nodes = Nodes(directory, 3)
    return soak.steady(nodes, lambda: measure(nodes, ("write", 64), 5.0), options.seconds)


def idles(directory: Path, options: argparse.Namespace) -> bool:
    """Five nodes that have nothing to do."""
    cpu = idle_cpu(directory, options.seconds)
    average = sum(cpu) / len(cpu)
    print(f"five idle nodes: leader {cpu[0]:.1%} of a core (bound: 5%), average {average:.1%} (bound: 3%)")
    return cpu[0] < 0.05 and average < 0.03


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="NAME")

    def command(name: str, function: Callable[[Path, argparse.Namespace], bool]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, description=function.__doc__, help=function.__doc__)
        sub.set_defaults(function=function)
        return sub

    change = command("leader-change", leader_changes)
    change.add_argument("--rounds", type=int, default=3, help="of a kill and a transfer each (default: %(default)s)")
    change.add_argument("--sizes", type=int, nargs="+", default=[3, 5], help="nodes (default: 3 5)")
    change.add_argument("--clients", type=int, default=64, help="default: %(default)s")
    large = command("large-state", large_states)
    large.add_argument("--megabytes", type=int, default=200, help="of state (default: %(default)s)")
    large.add_argument("--clients", type=int, default=4, help="that write meanwhile (default: %(default)s)")
    long = command("soak", soaks)
    long.add_argument("--minutes", type=float, default=1.0, help="default: %(default)s; the issue asks for ten")
    long.add_argument("--clients", type=int, default=32, help="default: %(default)s")
    long.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    long.add_argument("--keep", type=Path, help="keep the run here")
    command("steady", steady).add_argument("--seconds", type=float, default=60.0, help="default: %(default)s")
    command("idle", idles).add_argument("--seconds", type=float, default=10.0, help="default: %(default)s")
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of everything that is to be stopped and removed
    with tempfile.TemporaryDirectory(prefix="raftbed-experiment-") as scratch:
        return 0 if options.function(Path(scratch), options) else 1


if __name__ == "__main__":
    sys.exit(main())
