"""The named tests, and the tables of what they are made of: the only joint between the parts.

A test is a workload, the faults that strike it, and defaults; everything else follows from the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from raftbed.errors import UsageError

if TYPE_CHECKING:
    from raftbed.workloads.base import Workload

CALM_ELECTIONS: Mapping[str, Any] = {
    # Five nodes, a controller and its clients share a laptop's cores here: with the library's 150 to 300 ms a busy
    # scheduler would cause elections that no fault asked for.
    "election_timeout_min": 500,
    "election_timeout_max": 1000,
    "heartbeat_interval": 100,
}

RARE_MADE_FREQUENT: Mapping[str, Any] = {
    # Snapshots after some dozens of entries, in several pieces, and logs that do not reach far back.
    "snapshot_policy": 60,
    "trailing_logs": 10,
    "replication_lag_threshold": 40,
    "snapshot_max_chunk_size": 512,
}

SIMULATED = "simulated"
"""The kind of hosts of runs in virtual time."""

REAL_NODES = "simulated-real-nodes"
"""The same, with the whole nodes, and not their cores alone."""

IN_VIRTUAL_TIME = (SIMULATED, REAL_NODES)


@dataclass(frozen=True, slots=True)
class NamedTest:
    """A test as one names it on the command line.

    Attributes:
        name: "partition-test".
        summary: one sentence for lists.
        workload: name of its workload.
        faults: kinds of fault in its schedule.
        node_options: configuration of the system under test where it departs from the system's defaults.
        hosts: where it runs unless told otherwise.
        rate: operations per second over all clients, unless told otherwise; None: what is usual there.
        swarm: its seeds draw options of single nodes, and arm rare points (`raftbed.swarm`).
    """

    name: str
    summary: str
    workload: str = "register"
    faults: tuple[str, ...] = ()
    node_options: Mapping[str, Any] = field(default_factory=lambda: CALM_ELECTIONS)
    hosts: str = "local"
    rate: float | None = None
    swarm: bool = False


FAULTS: Mapping[str, str] = {
    "partition": "cuts the network between nodes: one, halves, majorities-ring, bridge, one-way, leader-aimed shapes",
    "kill": "kills node processes with SIGKILL and restarts them on their data: one, minority, majority, all, leader",
}

SIMULATED_FAULTS: Mapping[str, str] = {
    "pause": "stops node processes with SIGSTOP, and lets them go on (simulator only)",
    "power": "machines lose their power: un-synced writes are lost or torn (simulator only)",
    "loss": "a share of all messages of some nodes is lost (simulator only)",
    "duplicate": "a share of all messages of some nodes comes twice (simulator only)",
    "delay": "messages of some nodes take longer, and overtake each other (simulator only)",
    "clog": "messages of some nodes are held, and come in a burst (simulator only)",
    "slow-disk": "syncs take ten to three hundred times as long (simulator only)",
    "full-disk": "nothing more fits on a disk: its node stops (simulator only)",
    "bad-disk": "a disk cannot be read, written or synced: its node stops (simulator only)",
    "clock": "clocks run faster or slower, and jump ahead (simulator only)",
    "membership": "operators take nodes out of the cluster, and bring them back (simulator only)",
    "transfer": "operators move the leadership to another node (simulator only)",
    "moment": "strikes a node just after a vote, between append and commit, as it begins to lead (simulator only)",
}

SHELL_FAULTS: Mapping[str, str] = {
    "reset": "connections of some nodes are reset, again and again (simulated real nodes only)",
    "hang-up": "clients of some nodes hang up in the middle of their requests (simulated real nodes only)",
    "hasty-clients": "clients of some nodes give them milliseconds to answer (simulated real nodes only)",
    "slow-clients": "requests to some nodes, and their answers, come late and bit by bit (simulated real nodes only)",
    "terminate": "stops nodes with SIGTERM under load, and starts them again (simulated real nodes only)",
}

TESTS: Mapping[str, NamedTest] = {
    test.name: test
    for test in (
        NamedTest("partition-test", "registers under network partitions of every shape", faults=("partition",)),
        NamedTest("crash-test", "registers while nodes are killed and restarted", faults=("kill",)),
        NamedTest("smoke-test", "registers with no faults: does it run at all?"),
        NamedTest(
            "chaos-test",
            "registers in the simulator, under every fault that it has",
            faults=(*FAULTS, *SIMULATED_FAULTS),
            node_options=RARE_MADE_FREQUENT,
            hosts=SIMULATED,
            rate=85.0,  # so that seeds whose faults leave no quorum for seconds acknowledge some hundreds, too
            swarm=True,
        ),
    )
}

SIMULATED_CHECKS = ("liveness", "message-storm", "synced-before-sent")
"""What judges a simulated run, beside the workload's checks."""

_NOT_OF_WHOLE_NODES = ("message-storm",)  # what they send goes through their sockets, and is not counted


def _register() -> Workload:
    from raftbed.workloads.register import Register

    return Register()


WORKLOADS: Mapping[str, Callable[[], Workload]] = {"register": _register}

SYSTEMS: Mapping[str, str] = {"raft": "the Raft of raftbed.nodes, over HTTP"}
HOSTS: Mapping[str, str] = {
    "local": "hosts made of this machine's own namespaces, with SSH and addresses of their own",
    "docker": "containers of Docker or Podman, in a network of their own",
    "vagrant": "virtual machines of a Vagrantfile, on a private network",
    SIMULATED: "no hosts: virtual time, disks and network in one process, for `raftbed simulate`",
    REAL_NODES: "the same with the whole nodes, server and storage included: `raftbed simulate --real-nodes`",
}
HOSTS_BY_NAME: Mapping[str, str] = {
    "FILE.toml": "machines of your own over SSH, as an inventory file lists them",
    "user@a,user@b": "the same, named on the command line",
}
"""Hosts that are not kinds but named by the user."""

SYSTEM_CHECKS: Mapping[str, tuple[str, ...]] = {"raft": ("raft-invariants",)}
"""Checks of what a system's nodes record of themselves, beside those of the workload."""


def faults_of(test: NamedTest, hosts: str) -> tuple[str, ...]:
    """The kinds of fault that a test has on a kind of hosts: one for the simulator has all that there are."""
    return (*test.faults, *SHELL_FAULTS) if test.hosts == SIMULATED and hosts == REAL_NODES else test.faults


def simulated_checks(hosts: str) -> tuple[str, ...]:
    """Which of `SIMULATED_CHECKS` judge a run on a kind of hosts."""
    if hosts not in IN_VIRTUAL_TIME:
        return ()
    return tuple(name for name in SIMULATED_CHECKS if hosts == SIMULATED or name not in _NOT_OF_WHOLE_NODES)


def pick(table: Mapping[str, Any], name: str, kind: str) -> Any:
    """Look `name` up in one of the tables above.

    Raises:
        UsageError: there is no such thing; the message names those there are.
    """
    if name not in table:
        known = ", ".join(sorted(table)) or "none"
        raise UsageError(f"There is no {kind} {name!r}.", remedy=f"There are: {known}.")
    return table[name]
