"""Making a cluster that stays: hosts, code, nodes, a leader; and new code for one that is there."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from raftbed import plan as planning
from raftbed.errors import HostError
from raftbed.hosts import HostPool, labs, make_pool
from raftbed.hosts.inventory import Inventory
from raftbed.model import Plan
from raftbed.operating import clusters
from raftbed.operating.clusters import Cluster, ClusterRecord, NodeRecord
from raftbed.systems.raft import RaftSystem

_READY_TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class UpRequest:
    """What the user asked of ``raftbed cluster up``.

    Attributes:
        name: of the cluster.
        hosts: their kind, or an inventory.
        nodes: how many, None for the default or what the inventory has.
        bug: to be planted, or None.
    """

    name: str
    hosts: str = "local"
    nodes: int | None = None
    bug: str | None = None


async def bring_up(request: UpRequest, say: Callable[[str], None]) -> Cluster:
    """Make the hosts, deploy, start the nodes, initialize the cluster, wait for its leader, and leave it running.

    Raises:
        RaftbedError: it could not be done; hosts that were made are gone again.
    """
    plan = _plan(request)
    directory = clusters.new_directory(request.name)
    pool = make_pool(plan.hosts, plan.nodes, directory)
    stays = False
    try:
        say(f"Making {len(plan.nodes)} {plan.hosts} hosts.")
        await pool.start()
        record = await _start_nodes(request, pool, plan, say)
        clusters.write_record(directory, record)
        inventory: Inventory = pool.inventory  # type: ignore[attr-defined]  # every pool has one, whatever its kind
        inventory.save(directory / labs.INVENTORY)
        stays = True
    finally:
        await pool.close(keep=stays)
        if not stays:
            labs.remove_files(directory)
            clusters.tidy_up()
    return Cluster(request.name, directory, record, labs.lab_info(directory))


def _plan(request: UpRequest) -> Plan:
    settings = planning.PlanSettings(test="smoke-test", hosts=request.hosts, nodes=request.nodes, bug=request.bug)
    return planning.make_plan(settings, seed=0)


async def _start_nodes(request: UpRequest, pool: HostPool, plan: Plan, say: Callable[[str], None]) -> ClusterRecord:
    # A name of its own for each: nodes that were forgotten somewhere do not talk to those of another cluster.
    system = RaftSystem(pool, plan, cluster=f"raftbed {request.name} {secrets.token_hex(4)}", trace=False)
    try:
        say("Deploying the nodes' code.")
        await system.install()
        say("Starting the nodes.")
        try:
            await system.start()
            if not await system.wait_ready(timeout=_READY_TIMEOUT):
                raise HostError(f"the nodes elected no leader within {_READY_TIMEOUT:g} s of their start.")
        except BaseException:
            await system.stop()
            raise
        return record_of(request.name, request.hosts, system, plan)
    finally:
        await system.close()


def record_of(name: str, hosts: str, system: RaftSystem, plan: Plan) -> ClusterRecord:
    """What to remember of a cluster that runs.

    Parameters:
        name: of the cluster.
        hosts: their kind, or an inventory.
        system: its nodes, installed.
        plan: what they were installed for.
    """
    return ClusterRecord(
        name=name,
        hosts=hosts,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        bundle=Path(system.installed[plan.nodes[0]].directory).name,
        bug=plan.bug,
        nodes={
            node: NodeRecord(system.addresses[node], system.command(node), system.installed[node].environment)
            for node in plan.nodes
        },
    )
