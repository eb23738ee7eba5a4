"""Minutes of partitions and kills at full load: a `raftbed run`, and the memory of its nodes meanwhile."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cluster.nodes import Nodes, memory

RAFTBED = str(Path(sys.executable).with_name("raftbed"))
GROWTH = 0.1
"""Memory is flat when what a line through the samples rises by is less than this part of their mean."""
_EVERY = 0.5
_YOUNG = 2.0  # seconds after which a process has loaded what it needs
_SAMPLES = 20  # at least, for a line

Sample = tuple[float, float]
"""Seconds and MiB."""


def descendants(pid: int) -> Iterator[int]:
    """All processes below one."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdecimal():
            try:
                parent = int((directory / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(directory.name))
    below = [pid]
    while below:
        found = children.get(below.pop(), [])
        yield from found
        below += found


def nodes_below(pid: int) -> Iterator[tuple[str, int]]:
    """Name and process of every node that runs below a process, in whatever namespaces."""
    for one in descendants(pid):
        try:
            command = Path(f"/proc/{one}/cmdline").read_text().split("\0")
            if "raftbed.nodes" in command and "--config" in command:
                file = command[command.index("--config") + 1]
                yield json.loads(Path(f"/proc/{one}/root{file}").read_text())["id"], one
        except (OSError, ValueError):
            continue


def watch(process: subprocess.Popen[str]) -> dict[str, list[Sample]]:
    """Samples of every node until the run ends; of each process, from two seconds after it was first seen."""
    samples: dict[str, list[Sample]] = {}
    seen: dict[int, float] = {}
    begun = time.monotonic()
    while process.poll() is None:
        time.sleep(_EVERY)
        for node, pid in nodes_below(process.pid):
            now = time.monotonic()
            try:
                resident = memory(pid)
            except OSError:
                continue
            if now - seen.setdefault(pid, now) >= _YOUNG:
                samples.setdefault(node, []).append((now - begun, resident))
    return samples


def rise(samples: list[Sample]) -> tuple[float, float]:
    """Slope of the line through the second half of the samples, in MiB per minute, and its rise as part of the mean.

    The first half is when caches, tables and logs fill up to their limits.
    """
    half = samples[len(samples) // 2 :]
    times, sizes = zip(*half, strict=True)
    slope = statistics.linear_regression(times, sizes).slope
    return 60 * slope, slope * (times[-1] - times[0]) / statistics.mean(sizes)


def run(directory: Path, minutes: float, clients: int, seed: int) -> bool:
    """Everything; returns whether the bounds hold."""
    limit = 60 * minutes
    arguments = ["partition-test", "--faults", "partition,kill", "--rate", "0", "--time-limit", f"{limit:g}"]
    arguments += ["--concurrency", str(clients), "--seed", str(seed), "--store", str(directory), "--json"]
    arguments += ["--check-time-limit", f"{max(60.0, limit):g}"]
    print("raftbed run", *arguments, flush=True)
    begun = time.monotonic()
    said = directory / "said.json"
    with said.open("w") as file:
        process = subprocess.Popen([RAFTBED, "run", *arguments], stdout=file, text=True)
        try:
            samples = watch(process)
        finally:
            if process.poll() is None:
                process.terminate()  # it ends its hosts with it
                process.wait(60)
    good = process.returncode == 0
    print(f"exit {process.returncode} after {time.monotonic() - begun:.0f} s")
    for line in verdicts(said.read_text()):
        print(line)
    return shown(samples) and good


def shown(samples: Mapping[str, list[Sample]]) -> bool:
    """Print a table of the nodes' memory; returns whether it is flat."""
    good = bool(samples)
    print("| node | MiB at first | at the end | most | MiB per minute | rise in the second half |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for node, taken in sorted(samples.items()):
        if len(taken) < _SAMPLES:
            print(f"| {node} | too few samples: {len(taken)} |")
            good = False
            continue
        slope, part = rise(taken)
        good = good and part < GROWTH
        sizes = [size for _, size in taken]
        print(
            f"| {node} | {sizes[0]:.1f} | {sizes[-1]:.1f} | {max(sizes):.1f} | {slope:+.2f} | {part:+.1%} |"
            f"{'' if part < GROWTH else ' <--'}"
        )
    return good


def verdicts(said: str) -> Iterator[str]:
    """What `raftbed run --json` found, a line per checker."""
    try:
        result = json.loads(said)
    except ValueError:
        yield said[-2000:]
        return
    yield result["validity"]
    for run in result["runs"]:
        for verdict in (run["results"] or {}).get("verdicts", []):
            yield f"  {verdict['checker']}: {verdict['validity']}: {verdict['summary']}"


def steady(nodes: Nodes, load: Callable[[], object], seconds: float) -> bool:
    """Memory of nodes under one load after another, without faults; returns whether it is flat."""
    samples: dict[str, list[Sample]] = {}
    stop = threading.Event()

    def sample() -> None:
        begun = time.monotonic()
        while not stop.wait(_EVERY):
            for number, process in enumerate(nodes.processes):
                samples.setdefault(f"n{number + 1}", []).append((time.monotonic() - begun, memory(process.pid)))

    sampler = threading.Thread(target=sample, daemon=True)
    try:
        nodes.start()
        begun = time.monotonic()
        sampler.start()
        while time.monotonic() - begun < seconds:
            load()
        stop.set()
        sampler.join()
        applied = max(nodes.ask_all(lambda status: status["last_applied"]))
    finally:
        stop.set()
        nodes.stop()
    print(f"{applied:,} writes in {time.monotonic() - begun:.0f} s")
    return shown(samples)
