"""How much is simulated in a second of a processor. Prints a table; run it as `python benchmarks/simulation.py`.

"chaos-test" is what a campaign does for each seed: make the plan, simulate ten seconds of five nodes under every fault,
run all checks. "saturated" is four seconds of the same with clients that never pause: on 100 keys, because a client
whose compare-and-set fails waits a while, and of 100 clients on 8 keys half do so at any time. A seed's operations are
the acknowledged ones. Times are of the processor, of this process alone; of several rounds over the same seeds the
quickest counts, because a busy machine makes runs slower and never quicker.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

from raftbed.plan import PlanSettings, make_plan
from raftbed.sim.replay import judge
from raftbed.sim.simulation import Simulation, rare_collections

SATURATED = {"rate": 0.0, "concurrency": "20n", "keys": 100, "time_limit": 4.0}


@dataclass(frozen=True, slots=True)
class Round:
    """What one pass over the seeds took.

    Attributes:
        operations: acknowledged, of each seed.
        simulated: seconds of a processor for the simulations.
        judged: for the checks.
        slowest: for one seed, both together.
        invalid: seeds that ended invalid or unknown.
    """

    operations: list[int]
    simulated: float
    judged: float
    slowest: float
    invalid: list[int]

    @property
    def seconds(self) -> float:
        """Of a processor, in all."""
        return self.simulated + self.judged


def go_through(settings: PlanSettings, seeds: range) -> Round:
    """Simulate and judge `seeds`, one after the other."""
    operations, invalid = [], []
    simulated = judged = slowest = 0.0
    for seed in seeds:
        began = time.process_time()
        recording = Simulation(make_plan(settings, seed=seed)).run()
        between = time.process_time()
        results = judge(recording)
        ended = time.process_time()
        if results.validity != "valid":
            invalid.append(seed)
        operations.append(recording.counts["ok"])
        simulated, judged = simulated + between - began, judged + ended - between
        slowest = max(slowest, ended - began)
    return Round(operations, simulated, judged, slowest, invalid)


def measure(name: str, settings: PlanSettings, seeds: range, rounds: int) -> None:
    """Print a line of the table."""
    go_through(settings, seeds[:1])  # imports, caches
    with rare_collections():  # as a campaign does
        best = min((go_through(settings, seeds) for _ in range(rounds)), key=lambda one: one.seconds)
    low, middle = min(best.operations), statistics.median(best.operations)
    print(
        f"{name:12} {len(seeds):6} {best.seconds:8.2f} {len(seeds) / best.seconds:12.2f} {low:9} {middle:10.0f} "
        f"{sum(best.operations) / best.seconds:12.0f} {best.judged / best.seconds:9.0%} {best.slowest:10.2f}"
        f"  {', '.join(map(str, best.invalid))}"
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--saturated-seeds", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{'':12} {'seeds':>6} {'CPU s':>8} {'seeds/CPU s':>12} {'least ok':>9} {'median ok':>10} {'ok/CPU s':>12} "
        f"{'of checks':>9} {'slowest s':>10}  not valid"
    )
    first = options.first_seed
    chaos = PlanSettings(test="chaos-test")
    measure("chaos-test", chaos, range(first, first + options.seeds), options.rounds)
    if options.saturated_seeds:
        saturated = PlanSettings(test="chaos-test", **SATURATED)
        measure("saturated", saturated, range(first, first + options.saturated_seeds), options.rounds)


if __name__ == "__main__":
    main()
