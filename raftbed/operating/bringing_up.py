"""Making a cluster that stays: hosts, code, nodes, a leader; and new code for one that is there."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from raftbed import plan as planning
from raftbed.errors import HostError, StoreError
from raftbed.hosts import HostPool, SocketFactory, labs, make_pool
from raftbed.hosts.inventory import Inventory
from raftbed.hosts.inventory_file import Access, clean_command, is_inventory
from raftbed.hosts.preflight import Needs, preflight
from raftbed.hosts.remote import InventoryPool
from raftbed.model import Plan
from raftbed.operating import clusters
from raftbed.operating.clusters import Cluster, ClusterRecord, NodeRecord
from raftbed.running import settings_for_hosts
from raftbed.systems.raft import PORT, RaftSystem

_READY_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class UpRequest:
    """What the user asked of ``raftbed cluster up``.

    Attributes:
        name: of the cluster.
        hosts: their kind, or an inventory.
        nodes: how many, None for the default or what the inventory has.
        bug: to be planted, or None.
        access: what the user adds to an inventory.
    """

    name: str
    hosts: str = "local"
    nodes: int | None = None
    bug: str | None = None
    access: Access | None = None


async def bring_up(request: UpRequest, say: Callable[[str], None]) -> tuple[Cluster, str]:
    """Make the hosts, deploy, start the nodes, initialize the cluster, wait for its leader, and leave it running.

    Returns:
        the cluster, and the node that leads.

    Raises:
        RaftbedError: it could not be done; hosts that were made are gone again.
    """
    plan = _plan(request)
    directory = clusters.new_directory(request.name)
    pool = make_pool(plan.hosts, plan.nodes, directory, access=request.access)
    stays = False
    try:
        count = f"{len(plan.nodes)} host{'s' if len(plan.nodes) > 1 else ''}"
        theirs = is_inventory(plan.hosts)
        say(f"Logging in to {count}." if theirs else f"Making {count}.")
        await pool.start()
        needs = Needs(ports=(PORT,), clean=clean_command(plan.hosts), clusters=clusters.ways_to_take_down)
        for oddity in await preflight(pool.hosts, needs):
            say(oddity)
        record, leader = await _start_nodes(request, pool, plan, say)
        if theirs:
            directory.mkdir(mode=0o700)
        clusters.write_record(directory, record)
        inventory: Inventory = pool.inventory  # type: ignore[attr-defined]  # every pool has one, whatever its kind
        inventory.save(directory / labs.INVENTORY)
        stays = True
    finally:
        await pool.close(keep=stays)
        if not stays:
            labs.remove_files(directory)
            clusters.tidy_up()
    return Cluster(request.name, directory, record, labs.lab_info(directory)), leader


def _plan(request: UpRequest) -> Plan:
    settings = planning.PlanSettings(test="smoke-test", hosts=request.hosts, nodes=request.nodes, bug=request.bug)
    return planning.make_plan(settings_for_hosts(settings), seed=0)


async def _start_nodes(
    request: UpRequest, pool: HostPool, plan: Plan, say: Callable[[str], None]
) -> tuple[ClusterRecord, str]:
    system = RaftSystem(pool, plan, cluster=_identity(request.name), trace=False)
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
        seen = await system.control.leader()
        return record_of(request.name, plan, system), seen.node if seen else plan.nodes[0]
    finally:
        await system.close()


def record_of(name: str, plan: Plan, system: RaftSystem) -> ClusterRecord:
    """What to remember of a cluster.

    Parameters:
        name: for people.
        plan: what its nodes were installed for.
        system: its nodes, installed.
    """
    return ClusterRecord(
        name=name,
        hosts=plan.hosts,
        created=datetime.now().astimezone().isoformat(timespec="seconds"),
        identity=system.cluster,
        bundle=Path(system.installed[plan.nodes[0]].directory).name,
        bug=plan.bug,
        nodes={
            node: NodeRecord(system.peers[node], system.command(node), system.installed[node].environment)
            for node in plan.nodes
        },
    )


def remember_kept(directory: Path, run: str, plan: Plan, system: RaftSystem) -> None:
    """Note beside hosts that a run keeps how their nodes are started, for `raftbed cluster`.

    Parameters:
        directory: of their lab.
        run: the name of the run.
        plan: what the nodes were installed for.
        system: its nodes, installed.
    """
    with contextlib.suppress(StoreError):  # the hosts can be used without it: for status, exec, ssh, logs
        clusters.write_record(directory, record_of(run, plan, system))


class _ReachedPool(InventoryPool):
    """Hosts that are up and stay, local ones as well."""

    @property
    def socket_factory(self) -> SocketFactory | None:
        """Makes sockets in a lab, where the hosts are in one."""
        return next(iter(self.inventory.values())).open_socket


async def deploy_again(cluster: Cluster, inventory: Inventory, bug: str | None) -> ClusterRecord:
    """Bring the nodes' code as it is now to the hosts; what runs goes on running what it runs. Data is kept.

    Parameters:
        cluster: which.
        inventory: how its hosts are reached.
        bug: to be planted in the nodes, None for honest ones.

    Returns:
        the cluster's new record, which is written already.

    Raises:
        RaftbedError: a host cannot be reached, or the code cannot be brought to it.
    """
    before = cluster.record
    kind = before.hosts if before else "local"
    settings = planning.PlanSettings(test="smoke-test", hosts=kind, nodes=list(inventory), bug=bug)
    plan = planning.make_plan(settings, seed=0)
    pool = _ReachedPool(inventory)
    await pool.start()
    identity = before.identity if before else _identity(cluster.name)
    system = RaftSystem(pool, plan, cluster=identity, trace=False)
    try:
        await system.install(keep_data=True)
        record = record_of(cluster.name, plan, system)
        if before is not None:
            record = msgspec.structs.replace(record, created=before.created)
        clusters.write_record(cluster.directory, record)
        return record
    finally:
        await system.close()
        await pool.close()


def _identity(name: str) -> str:
    """By what nodes know their cluster. Those that were forgotten somewhere do not talk to those of another one."""
    return f"raftbed {name} {secrets.token_hex(4)}"
