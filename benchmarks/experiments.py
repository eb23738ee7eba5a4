"""The experiments by which raftbed is judged, on real local hosts. Run as ``python benchmarks/experiments.py NAME``.

    overhead    wall time of `raftbed run partition-test` beyond its time limit: five runs, the median
    seeds       partition-test with ten seeds: verdict, acknowledged operations per second, faults, recoveries
    bugs        every planted bug with five seeds, on the test that its module names: found or not, and when
    twenty      smoke-test on twenty local hosts: seconds until they are up, deployed to, and running
    histories   `raftbed check` on every history of a manifest: verdicts agree, and how long the slowest takes

Each prints a table, and ends with exit code 0 when its bounds hold, 1 when not. What the runs leave is kept in the
directory given with ``--keep``, else removed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from raftbed.store import RunDirectory

RAFTBED = str(Path(sys.executable).with_name("raftbed"))


def run(directory: Path, *arguments: str) -> tuple[int, float, RunDirectory | None, str]:
    """Exit code, wall seconds, run directory and what was said on stderr, of one `raftbed run`."""
    begun = time.monotonic()
    ended = subprocess.run(
        [RAFTBED, "run", *arguments, "--store", str(directory), "--quiet"], capture_output=True, text=True, check=False
    )
    wall = time.monotonic() - begun
    latest = directory / "latest"
    return ended.returncode, wall, RunDirectory(latest.resolve()) if latest.exists() else None, ended.stderr.strip()


def overhead(directory: Path, options: argparse.Namespace) -> bool:
    """Wall time beyond the time limit."""
    limit, beyond = 20.0, []
    for number in range(5):
        code, wall, _, said = run(directory, "partition-test", "--time-limit", str(limit), "--seed", str(number))
        beyond.append(wall - limit)
        print(f"run {number}: exit {code}, {wall:.1f} s, {wall - limit:.1f} s beyond the time limit {said}", flush=True)
    median = statistics.median(beyond)
    print(f"median {median:.1f} s (bound: {options.bound:g} s)")
    return median <= options.bound


def seeds(directory: Path, options: argparse.Namespace) -> bool:
    """Valid, fast enough, every fault proved and healed, soon back after each heal."""
    good = True
    print("seed  exit  verdict  ok/s  faults planned/proved/healed  slowest recovery")
    for seed in range(options.first, options.first + options.count):
        code, _, made, said = run(directory, options.test, "--time-limit", "20", "--seed", str(seed))
        if made is None:
            print(f"{seed:4}  {code:4}  {said}", flush=True)
            good = False
            continue
        results = made.results()
        verdicts = {verdict.checker: verdict for verdict in results.verdicts} if results else {}
        states = [event.state for event in made.faults()]
        planned, proved, healed = len(made.plan().schedule), states.count("proved"), states.count("healed")
        acknowledged = sum(op.type == "ok" for op in made.history()) / 20.0
        recoveries = [row["seconds"] for row in verdicts["availability"].details.get("recoveries", [])]
        slowest = max(recoveries, key=lambda seconds: float("inf") if seconds is None else seconds, default=0.0)
        held = (
            code == 0 and acknowledged >= 200 and planned == proved == healed and slowest is not None and slowest <= 3.0
        )
        good = good and held
        shown = "never" if slowest is None else f"{slowest:.2f} s"
        validity = results.validity if results else "none"
        counts = f"{planned}/{proved}/{healed}"
        print(f"{seed:4}  {code:4}  {validity:7}  {acknowledged:4.0f}  {counts:28}  {shown}  {'' if held else '<--'}")
        for verdict in verdicts.values():
            if verdict.validity != "valid":
                print(f"      {verdict.checker}: {verdict.summary}")
        sys.stdout.flush()
    return good


def bugs(directory: Path, options: argparse.Namespace) -> bool:
    """Found in at least four of five seeds, each within sixty seconds of run time."""
    from raftbed import bugs as planted

    good = True
    for name in options.names or planted.names():
        bug, found = planted.load(name), 0
        for seed in range(options.first, options.first + options.count):
            code, wall, made, said = run(
                directory, bug.test, "--bug", name, "--time-limit", str(options.time_limit), "--seed", str(seed)
            )
            found += code == 1
            results = made.results() if made is not None else None
            broken = [verdict for verdict in results.verdicts if verdict.validity == "invalid"] if results else []
            summary = broken[0].summary if broken else said or "not found"
            print(f"{name}  seed {seed}  exit {code}  {wall:.0f} s  {summary}", flush=True)
        print(f"{name}: found with {found} of {options.count} seeds", flush=True)
        good = good and found >= 0.8 * options.count
    return good


def twenty(directory: Path, options: argparse.Namespace) -> bool:
    """Twenty hosts are up, deployed to and running within the bound."""
    code, _, made, said = run(directory, "smoke-test", "--nodes", "20", "--time-limit", "5", "--rate", "50")
    if made is None:
        print(f"exit {code}: {said}")
        return False
    begun = {event.message: event.time / 1e9 for event in made.events() if event.kind == "phase"}
    for before, after in itertools.pairwise(("hosts", "deploy", "start", "clients")):
        print(f"{before:8}{begun.get(after, float('nan')) - begun.get(before, 0.0):6.1f} s")
    took = begun.get("clients", float("inf"))
    print(f"exit {code}; running after {took:.1f} s (bound: {options.bound:g} s) {said}")
    return code == 0 and took <= options.bound


def histories(directory: Path, options: argparse.Namespace) -> bool:
    """The verdicts of a manifest, each in a process of its own, as a user would ask for them."""
    root = Path(options.manifest).parent
    slowest, wrong, unknown, count = (0.0, ""), [], [], 0
    for path, expected in _manifest(Path(options.manifest)):
        begun = time.monotonic()
        ended = subprocess.run(
            [RAFTBED, "check", "--json", str(root / path)], capture_output=True, text=True, check=False, cwd=directory
        )
        slowest = max(slowest, (time.monotonic() - begun, path))
        count += 1
        answer = json.loads(ended.stdout)["validity"]
        if answer == "unknown":
            unknown.append(path)
        elif (answer == "valid") is not expected:
            wrong.append(path)
    print(f"{count} histories: {len(wrong)} wrong {wrong}, {len(unknown)} unknown {unknown}")
    print(f"slowest: {slowest[0]:.1f} s, {slowest[1]}")
    return not wrong and len(unknown) <= 5 and slowest[0] <= 30.0


def _manifest(path: Path) -> Iterator[tuple[str, bool]]:
    content: Any = json.loads(path.read_text())
    for entry in content if isinstance(content, list) else content["histories"]:
        yield entry["file"], entry["valid"]


EXPERIMENTS: dict[str, Callable[[Path, argparse.Namespace], bool]] = {
    function.__name__: function for function in (overhead, seeds, bugs, twenty, histories)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("names", nargs="*", help="bugs: only these")
    parser.add_argument("--test", default="partition-test", help="seeds: the test (default: %(default)s)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default: %(default)s)")
    parser.add_argument("--count", type=int, help="how many seeds (default: 10, for bugs 5)")
    parser.add_argument("--time-limit", type=float, default=60.0, help="bugs: seconds (default: %(default)s)")
    parser.add_argument("--bound", type=float, help="overhead, twenty: seconds (default: 8, for twenty 30)")
    parser.add_argument("--manifest", default="../shared/histories/manifest.json", help="histories: the manifest")
    parser.add_argument("--keep", type=Path, help="keep the runs here")
    options = parser.parse_args(argv)
    options.count = options.count or (5 if options.experiment == "bugs" else 10)
    options.bound = options.bound or (30.0 if options.experiment == "twenty" else 8.0)
    options.manifest = Path(options.manifest).absolute()
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.keep or Path(scratch)
        return 0 if EXPERIMENTS[options.experiment](directory, options) else 1


if __name__ == "__main__":
    sys.exit(main())
