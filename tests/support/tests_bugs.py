"""Random stories with a planted bug: ``python tests_bugs.py NAME SEEDS`` plants it, and says as JSON who found it.

Planting replaces methods of classes, so it is done in a process of its own. The stories are like those of
tests/unit/raft/test_simulation.py, but nothing is asserted: traces are judged by `raft_invariants`, and clients judge
what they see. Nodes keep their state in a real log store on a disk that loses what was not synced.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import tests_traces
from tests_traces import write_traces

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "storage"))

import raft_harness
from fake_disk import FakeDisk
from raft_harness import MS, Cluster, Outcome

from raftbed import bugs
from raftbed.analysis.raft_invariants import judge
from raftbed.nodes.raft import HardState, Normal
from raftbed.nodes.raft.messages import BEGINNING
from raftbed.nodes.storage import DiskLogStore

PATIENCE = 4_000
"""Milliseconds in which a cluster that nothing disturbs has to elect a leader; its election timeout is 300 at most."""


class PowerDisk:
    """Takes the place of the harness's disk: a log store that loses, at each start, what was not synced.

    Attributes:
        power: whether crashes are power failures; a killed process loses nothing that it wrote.
    """

    power = True

    def __init__(self) -> None:
        self.disk = FakeDisk()
        self.store: DiskLogStore | None = None
        self.random = Random(0)
        self.hard_state = HardState()
        self.entries: list[Any] = []
        self.base, self.snapshot, self.data = BEGINNING, None, b""  # stories take no snapshots

    def recover(self) -> None:
        """A start: from what is on disk now."""
        if self.store is not None:
            left = self.disk.only_what_was_synced() if self.power else self.disk.all_that_was_written()
            if self.power and left.files:
                torn = left.files[max(left.files)]
                torn.data += self.random.randbytes(self.random.choice([0, 0, 5, 40]))  # of a write that never ended
                torn.synced = len(torn.data)
            self.disk = left
        self.store = DiskLogStore(self.disk)
        state = self.store.get_initial_state()
        self.hard_state, self.entries = state.hard_state, list(state.entries)

    def write(self, persist: Any) -> None:
        assert self.store is not None
        self.store.persist(persist.hard_state, persist.truncate_from, persist.entries)
        if persist.truncate_from is not None:
            del self.entries[persist.truncate_from - 1 :]
        self.entries.extend(persist.entries)


class Story:
    """One run of a cluster under random faults. What clients saw to be wrong is in `seen`."""

    def __init__(self, bug: bugs.Bug, seed: int) -> None:
        self.random = random = Random(f"{bug.name}:{seed}")
        self.seen: set[str] = set()
        self.recorder = tests_traces.Recorder()
        raft_harness.Invariants = lambda: self.recorder  # type: ignore[assignment,misc,return-value]
        raft_harness.Disk = PowerDisk  # type: ignore[assignment,misc]
        options: dict[str, Any] = {"pre_vote": random.random() < 0.5, "check_quorum": random.random() < 0.7}
        options["snapshot_policy"] = None
        options |= {"max_payload_entries": random.choice([1, 3]), "max_inflight_messages": random.choice([1, 4])}
        self.cluster = cluster = Cluster(
            bug.nodes or random.choice([3, 3, 4, 5]), seed=seed, **{**options, **bug.node_options}
        )
        cluster.delay = (MS // 2, random.choice([2, 20, 120]) * MS)
        cluster.disk_time = (MS // 10, random.choice([1, 30]) * MS)
        cluster.loss, cluster.duplication = random.choice([0, 0.05, 0.2]), random.choice([0, 0.2])
        self.writes: dict[str, Outcome] = {}

    def tell(self, steps: int = 80) -> set[str]:
        import test_simulation

        names = list(self.cluster.nodes)
        try:
            for step in range(steps):
                test_simulation.trouble(self.cluster, self.random, names)
                if self.random.random() < 0.1:
                    self.cluster.elect(self.random.choice(names))  # by an operator: elections that follow closely
                for name in self.up():
                    self.writes[f"{step}-{name}"] = self.cluster.write(name, f"{step}-{name}")
                    self.read(name)
                self.cluster.run(self.random.choice([1, 10, 60, 200]))
            self.judge_the_end(names)
        except Exception as error:
            # Here one node's defect ends the story; a real node stops alone, with the same sentence in its log.
            self.seen.add(type(error).__name__)
        return self.seen

    def up(self) -> Iterator[str]:
        yield from (name for name, node in self.cluster.nodes.items() if node.core is not None)

    def read(self, name: str) -> None:
        node = self.cluster.nodes[name]
        acknowledged = [data for data, outcome in self.writes.items() if isinstance(outcome.value, tuple)]

        def answered(value: Any) -> None:
            if isinstance(value, int):  # the application reads its state machine now
                there = {payload.data for payload in node.applied if isinstance(payload, Normal)}
                if not there.issuperset(acknowledged):
                    self.seen.add("stale-read")

        node.take(raft_harness.ClientRead(answered))

    def judge_the_end(self, names: list[str]) -> None:
        cluster = self.cluster
        cluster.heal()
        cluster.loss, cluster.delay, cluster.disk_time = 0, (MS // 2, MS), (MS // 10, MS // 5)
        for name in names:
            if cluster.nodes[name].core is None:
                cluster.nodes[name].start()
        if not any(node.disk.entries for node in cluster.nodes.values()):
            return
        try:
            cluster.run_until(cluster.settled, 10_000)
            cluster.run(1_000)
            for _ in range(3 if len(names) > 2 else 0):
                lost = cluster.run_until(cluster.settled, PATIENCE)
                cluster.nodes[lost].crash()
                cluster.run_until(cluster.settled, PATIENCE)
                cluster.nodes[lost].start()
        except AssertionError:
            self.seen.add("no-leader")
            return
        cluster.run(1_000)
        longest = max((node.applied for node in cluster.nodes.values()), key=len)
        final = [payload.data for payload in longest if isinstance(payload, Normal)]
        if {data for data, outcome in self.writes.items() if isinstance(outcome.value, tuple)} - set(final):
            self.seen.add("lost-write")


def hunt(bug: bugs.Bug, seeds: int) -> dict[str, Any]:
    """Tell stories until one is found wanting."""
    begin = time.process_time()
    found: dict[str, Any] = {"bug": bug.name, "found": False, "seeds": seeds, "by": [], "operations": 0}
    for seed in range(seeds):
        story = Story(bug, seed)
        by = story.tell()
        found["operations"] += sum(outcome.done for outcome in story.writes.values())
        with tempfile.TemporaryDirectory() as directory:
            verdict = judge(write_traces(Path(directory), story.recorder.finish()))
        by |= set(verdict.details["counts"])
        if by:
            found |= {"found": True, "seeds": seed + 1, "by": sorted(by), "sentence": verdict.summary}
            break
    return {**found, "seconds": round(time.process_time() - begin, 2)}


def main() -> None:
    name, seeds = sys.argv[1], int(sys.argv[2])
    control = bugs.Bug("none", "", "", "", "", "", lambda: None)
    bug = control if name == "none" else bugs.load(name)
    bug.plant()
    print(json.dumps(hunt(bug, seeds)))


if __name__ == "__main__":
    main()
