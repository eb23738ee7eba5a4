"""Three nodes over HTTP on this machine: this repository's, etcd, PySyncObj. Run `python benchmarks/raft_cluster.py`.

Durable writes and linearizable reads, at 1, 16 and 64 clients, by one light load generator, at the leader of each. The
systems take turns in each round; ratios are of the same round, and the median over the rounds counts.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec
from cluster import load
from cluster.systems import SYSTEMS, DefaultRaftbed, Raftbed, System, Unavailable

CLIENTS = (1, 16, 64)
LIMIT = 100_000
"""Operations in one measurement, at most."""

Case = tuple[str, int]
Results = dict[Case, dict[str, list[load.Measured]]]


def measure(system: System, case: Case, seconds: float) -> load.Measured:
    """One measurement, by a generator of its own."""
    kind, clients = case
    work = load.Load(
        host="127.0.0.1",
        port=system.ports[system.leader],
        requests=system.requests(kind),
        clients=clients,
        warmup=min(0.3, seconds / 4),
        seconds=seconds,
        limit=LIMIT,
        pids=system.pids(),
    )
    ended = subprocess.run(
        [sys.executable, load.__file__],
        input=msgspec.msgpack.encode(work),
        capture_output=True,
        timeout=seconds + 30,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr.decode())
    return msgspec.msgpack.decode(ended.stdout, type=load.Measured)


def idle_cpu(directory: Path, seconds: float) -> list[float]:
    """CPU of each node of five that have nothing to do, the leader's first; with the default configuration."""
    cluster = DefaultRaftbed(directory / "idle", size=5)
    try:
        cluster.start()
        time.sleep(1)
        cluster.find_leader()
        before = load.cpu_seconds(cluster.pids())
        time.sleep(seconds)
        return [(b - a) / seconds for a, b in zip(before, load.cpu_seconds(cluster.pids()), strict=True)]
    finally:
        cluster.stop()


def run_rounds(systems: Sequence[System], cases: Sequence[Case], rounds: int, seconds: float) -> Results:
    """All cases, each system in turn, in each round the other way round."""
    results: Results = {case: {system.name: [] for system in systems} for case in cases}
    for number in range(rounds):
        for case in cases:
            order = list(systems) if number % 2 == 0 else list(reversed(systems))
            for system in order:
                if case[0] in system.kinds:
                    system.find_leader()
                    results[case][system.name].append(measure(system, case, seconds))
        print(f"round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    return results


def table(results: Results) -> list[str]:
    """The figures, as Markdown: medians over the rounds."""
    lines = [
        "| operation | clients | system | op/s | p50 ms | p99 ms | leader CPU | nodes CPU | generator CPU | failed |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for (kind, clients), of in results.items():
        for name, runs in of.items():
            if runs:
                figures = [
                    f"{median(run.rate for run in runs):,.0f}",
                    f"{1e3 * median(run.p50 for run in runs):.2f}",
                    f"{1e3 * median(run.p99 for run in runs):.2f}",
                    f"{median(run.cpu[0] for run in runs):.0%}",
                    f"{median(sum(run.cpu) for run in runs):.0%}",
                    f"{median(run.generator_cpu for run in runs):.0%}",
                    str(sum(run.failed for run in runs)),
                ]
                lines.append(f"| {kind} | {clients} | {name} | {' | '.join(figures)} |")
    return lines


def ratios(results: Results) -> list[str]:
    """Ours over theirs, within each round; the median, and the least and greatest."""
    lines = [
        "| operation | clients | against | op/s ratio (range) | p50 ratio | p99 ratio |",
        "| --- | ---: | --- | ---: | ---: | ---: |",
    ]
    for (kind, clients), of in results.items():
        for name, runs in of.items():
            pairs = list(zip(of.get(Raftbed.name, []), runs, strict=False))
            if name == Raftbed.name or not pairs:
                continue
            rates = [ours.rate / theirs.rate for ours, theirs in pairs if theirs.operations]
            p50 = median(ours.p50 / theirs.p50 for ours, theirs in pairs)
            p99 = median(ours.p99 / theirs.p99 for ours, theirs in pairs)
            spread = f"{median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f})"
            lines.append(f"| {kind} | {clients} | {name} | {spread} | {p50:.2f} | {p99:.2f} |")
    return lines


def median(values: Iterable[float]) -> float:
    """Of at least one number."""
    return statistics.median(values)


def errors(results: Results) -> Mapping[str, str]:
    """The first error of each system that had one."""
    return {
        name: run.error for of in results.values() for name, runs in of.items() for run in runs if run.error is not None
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [system.name for system in SYSTEMS]
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--systems", default=",".join(names), help="default: %(default)s")
    parser.add_argument("--clients", default=",".join(map(str, CLIENTS)), help="default: %(default)s")
    parser.add_argument("--kinds", default="write,read", help="default: %(default)s")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds of the idle measurement; 0: none")
    options = parser.parse_args()
    cases = [(kind, int(clients)) for kind in options.kinds.split(",") for clients in options.clients.split(",")]
    running: list[System] = []
    with tempfile.TemporaryDirectory(prefix="raftbed-benchmark-") as scratch:
        try:
            for make in (make for make in SYSTEMS if make.name in options.systems.split(",")):
                system = make(Path(scratch))
                running.append(system)
                try:
                    system.start()
                except Unavailable as reason:
                    print(f"{system.name} is skipped: {reason}")
                    running.pop().stop()
            results = run_rounds(running, cases, options.rounds, options.seconds)
        finally:
            for system in running:
                system.stop()
        idle = idle_cpu(Path(scratch), options.idle) if options.idle else []
    print("\n".join([*table(results), "", *ratios(results)]))
    for name, error in errors(results).items():
        print(f"\nfirst error of {name}: {error}")
    if idle:
        average = sum(idle) / len(idle)
        print(f"\nfive idle nodes: leader {idle[0]:.1%} of a core, average {average:.1%}")


if __name__ == "__main__":
    main()
