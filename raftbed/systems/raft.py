"""The Raft of :mod:`raftbed.nodes` as a system under test: one node a host, peers and clients on one port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp
import msgspec

from raftbed.deploy import Installation, deploy_all, process_alive, signal_process, start_detached
from raftbed.errors import CommandError, HostError, RaftbedError
from raftbed.faults.base import LeaderSeen
from raftbed.hosts.base import Endpoint, Host, HostPool
from raftbed.hosts.parallel import in_parallel
from raftbed.hosts.processes import end_processes
from raftbed.model import Plan
from raftbed.store import RunDirectory, StatusSample
from raftbed.systems.kv_client import KeyValueConnection

PORT = 8400
_STATUS_TIMEOUT = 1.0
_START_TIMEOUT = 90.0  # emulated machines take long to import; a process that ends is noticed at once
_HOST_TIMEOUT = 20.0  # a host that is slow is not lost
_LOOK_AGAIN = 3.0  # seconds without an answer after which one asks whether the process lives at all
_POLL = 0.05
_LOG_LIMIT = 64 << 20
_FILES = ("node.log", "trace.jsonl")


class NodeControl:
    """The processes of the nodes; implements :class:`raftbed.faults.base.NodeControl`.

    Parameters:
        system: whose nodes these are.
    """

    def __init__(self, system: RaftSystem) -> None:
        self._system = system

    async def kill(self, node: str) -> Mapping[str, Any]:
        """See `NodeControl`."""
        evidence = await signal_process(self._system.host(node), self._system.path(node, "node.pid"), "KILL")
        return {"pid": evidence.pid, "state": evidence.state, "reason": evidence.reason}

    async def start(self, node: str) -> Mapping[str, Any]:
        """See `NodeControl`."""
        return await self._system.start_node(node)

    async def is_running(self, node: str) -> bool:
        """See `NodeControl`."""
        return (await process_alive(self._system.host(node), self._system.path(node, "node.pid"))).is_alive

    async def is_answering(self, node: str, *, timeout: float) -> bool:
        """See `NodeControl`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    if (await self._system.status(node)).reachable:
                        return True
                    await asyncio.sleep(_POLL)
        return False

    async def leader(self) -> LeaderSeen | None:
        """See `NodeControl`."""
        samples = await asyncio.gather(*(self._system.status(node) for node in self._system.nodes))
        reached = [sample for sample in samples if sample.reachable]
        claiming = [sample for sample in reached if sample.role == "leader" and sample.term is not None]
        if not claiming:
            return None
        best = max(claiming, key=lambda sample: sample.term or 0)
        evidence = {sample.node: f"{sample.role} in term {sample.term}" for sample in reached}
        return LeaderSeen(best.node, best.term or 0, evidence)


class RaftSystem:
    """Implements :class:`raftbed.systems.base.System`.

    Parameters:
        pool: hosts that are up.
        plan: what to run.
        cluster: the cluster's name; by default it is made of the plan's test and seed.
        trace: have the nodes write traces, which grow as long as they run.
    """

    def __init__(self, pool: HostPool, plan: Plan, *, cluster: str = "", trace: bool = True) -> None:
        self._pool = pool
        self._plan = plan
        self.cluster = cluster or f"raftbed {plan.test} {plan.seed}"
        self._trace = trace
        self.installed: Mapping[str, Installation] = {}
        self.peers: Mapping[str, str] = {name: f"{host.address}:{PORT}" for name, host in pool.hosts.items()}
        self._endpoints: Mapping[str, Endpoint] = {}
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._lost: set[str] = set()  # nodes whose hosts did not answer when they were last asked
        self.control = NodeControl(self)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return self._plan.nodes

    def host(self, node: str) -> Host:
        """Where a node runs."""
        return self._pool.hosts[node]

    def path(self, node: str, name: str) -> str:
        """A file of a node on its host."""
        return f"{self.host(node).home}/run/{name}"

    # -- life -----------------------------------------------------------------------------------------------------

    async def install(self, *, keep_data: bool = False) -> None:
        """See `System`. With `keep_data`, nodes that run go on, and what they have written stays."""
        await self._open_sessions()
        self.installed = await deploy_all(self._pool.hosts.values(), with_bug=self._plan.bug)
        await in_parallel(self._configure(node, keep_data=keep_data) for node in self.nodes)

    async def _open_sessions(self) -> None:
        """Find out how each node is reached: most through one session for all, those in a tunnel each by its own."""
        found = await in_parallel(host.endpoint(PORT) for host in self._pool.hosts.values())
        self._endpoints = dict(zip(self._pool.hosts, found, strict=True))
        timeout = aiohttp.ClientTimeout(total=_STATUS_TIMEOUT)
        direct: aiohttp.ClientSession | None = None
        for node, endpoint in self._endpoints.items():
            if endpoint.unix_socket:
                connector = aiohttp.UnixConnector(endpoint.unix_socket, limit=0)
                self._sessions[node] = aiohttp.ClientSession(connector=connector, timeout=timeout)
                continue
            if direct is None:
                tcp = aiohttp.TCPConnector(limit=0, socket_factory=self._pool.socket_factory)
                direct = aiohttp.ClientSession(connector=tcp, timeout=timeout)
            self._sessions[node] = direct

    def _url(self, node: str, path: str) -> str:
        return f"http://{self._endpoints[node].address}{path}"

    async def _configure(self, node: str, *, keep_data: bool) -> None:
        host, run = self.host(node), f"{self.host(node).home}/run"
        if not keep_data:
            await self._end_leftover(node)
            await host.run(["rm", "-rf", "--", run])
        await host.run(["mkdir", "-p", "-m", "0700", "--", run])
        settings = {
            "id": node,
            "cluster": self.cluster,
            "listen": f"{self._endpoints[node].listen}:{PORT}",
            "peers": self.peers,
            "data": f"{run}/data",
            "trace": f"{run}/trace.jsonl" if self._trace else None,
            "pid_file": f"{run}/node.pid",
            "raft": dict(self._plan.node_options),
            "bug": self._plan.bug,
        }
        await host.put(msgspec.json.encode(settings), f"{run}/node.json", mode=0o600)

    async def _end_leftover(self, node: str) -> None:
        # A run that was cut off may have left a node behind on a host that outlived it.
        with contextlib.suppress(CommandError):
            await end_processes(self.host(node), self.path(node, "node.pid"))

    async def start(self) -> None:
        """See `System`."""
        started = await in_parallel(self.start_node(node) for node in self.nodes)
        pids = [evidence["pid"] for evidence in started]
        await in_parallel(self._answers(node, pid) for node, pid in zip(self.nodes, pids, strict=True))
        first = self.nodes[0]
        url = self._url(first, "/admin/initialize")
        try:
            async with self._sessions[first].post(url, json={"members": list(self.nodes)}) as response:
                text = await response.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise HostError(f"the cluster could not be initialized: {error}.", host=first) from error
        if response.status != 200:
            raise HostError(f"the cluster could not be initialized: {text[:500]}", host=first)

    async def start_node(self, node: str) -> Mapping[str, Any]:
        """Start a node's process on whatever data it has."""
        evidence = await start_detached(
            self.host(node),
            self.command(node),
            environment=self.installed[node].environment,
            directory=f"{self.host(node).home}/run",
            log=self.path(node, "node.log"),
            pid_file=self.path(node, "node.pid"),
        )
        return {"pid": evidence.pid}

    def command(self, node: str) -> list[str]:
        """What starts a node that is installed, word by word."""
        module = "raftbed.nodes"
        if self._plan.bug is not None:
            from raftbed import bugs

            module = bugs.load(self._plan.bug).module
        return self.installed[node].command(module, "--config", self.path(node, "node.json"))

    async def _answers(self, node: str, pid: int) -> None:
        deadline = asyncio.get_running_loop().time() + _START_TIMEOUT
        said = f"the node did not answer within {_START_TIMEOUT:g} s of its start."
        while asyncio.get_running_loop().time() < deadline:
            if await self.control.is_answering(node, timeout=_LOOK_AGAIN):
                return
            if (await self.host(node).run(["test", "-d", f"/proc/{pid}"], check=False)).status != 0:
                said = "the node ended by itself at its start."
                break
        log = await self.host(node).run(["tail", "-n", "20", self.path(node, "node.log")], check=False)
        raise HostError(
            f"{said} The end of its log: {log.stdout.strip()[-2000:] or 'empty'}",
            host=node,
        )

    async def wait_ready(self, *, timeout: float) -> bool:
        """See `System`: every node answers, one leads, all follow it in its term and have applied what it had.

        Nodes on hosts that are lost (`lost_hosts`) are not waited for.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                target: tuple[str, int, int] | None = None
                while True:
                    samples = await asyncio.gather(*(self.status(node) for node in self.nodes))
                    asked = [sample for sample in samples if sample.reachable or sample.node not in self._lost]
                    leader = common_leader(asked)
                    lead = next((sample for sample in asked if sample.node == leader), None)
                    if lead is not None:
                        if target is None or target[:2] != (lead.node, lead.term or 0):
                            target = (lead.node, lead.term or 0, lead.last_log_index or 0)
                        if all((sample.last_applied or 0) >= target[2] for sample in asked):
                            return True
                    elif leader is not None:
                        return True  # it is on a lost host: what it had cannot be asked
                    await asyncio.sleep(_POLL)
        return False

    def connection(self) -> KeyValueConnection:
        """See `System`."""
        addresses = {node: endpoint.address for node, endpoint in self._endpoints.items()}
        return KeyValueConnection(self._sessions, addresses)

    async def status(self, node: str) -> StatusSample:
        """See `System`."""
        try:
            async with self._sessions[node].get(self._url(node, "/status")) as response:
                said = msgspec.json.decode(await response.read(), type=_Status)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            return StatusSample(0, node, reachable=False)
        return StatusSample(
            0,
            node,
            reachable=True,
            role=said.state,
            term=said.term,
            leader=said.leader,
            last_log_index=said.last_log_index,
            commit_index=said.commit_index,
            last_applied=said.last_applied,
        )

    async def lost_hosts(self) -> Mapping[str, str]:
        """See `System`."""
        lost: dict[str, str] = {}

        async def look(node: str) -> None:
            try:
                await self.host(node).run(["true"], timeout=_HOST_TIMEOUT)
            except RaftbedError as error:
                lost[node] = str(error)

        await asyncio.gather(*(look(node) for node in self.nodes))
        self._lost = set(lost)
        return lost

    async def unexpected_deaths(self, held_down: set[str]) -> Mapping[str, Mapping[str, Any]]:
        """See `System`."""
        found: dict[str, Mapping[str, Any]] = {}

        async def look(node: str) -> None:
            evidence = await process_alive(self.host(node), self.path(node, "node.pid"))
            if not evidence.is_alive:
                log = await self.host(node).run(["tail", "-n", "5", self.path(node, "node.log")], check=False)
                found[node] = {"pid": evidence.pid, "reason": evidence.reason, "log": log.stdout[-1000:]}

        asked = [node for node in self.nodes if node not in held_down | self._lost]
        await asyncio.gather(*(look(node) for node in asked), return_exceptions=True)
        return found

    async def restart_dead(self) -> None:
        """Start again every node whose process is gone, so that final reads can be tried."""

        async def restart(node: str) -> None:
            with contextlib.suppress(RaftbedError):
                if not await self.control.is_running(node):
                    await self.start_node(node)

        # A host that hangs costs the time that it takes to give it up: once, and not once for each step.
        await asyncio.gather(*(restart(node) for node in self.nodes if node not in self._lost))

    async def stop(self) -> None:
        """See `System`."""

        async def stop(node: str) -> None:
            host, pid_file = self.host(node), self.path(node, "node.pid")
            try:
                await signal_process(host, pid_file, "TERM", timeout=10.0)
            except CommandError:
                await signal_process(host, pid_file, "KILL")

        await asyncio.gather(*(stop(node) for node in self.nodes), return_exceptions=True)

    async def kill(self, *, timeout: float) -> list[str]:
        """See `System`."""
        tasks = {node: asyncio.create_task(self.control.kill(node)) for node in self.nodes}
        await asyncio.wait(tasks.values(), timeout=timeout)
        left = [node for node, task in tasks.items() if not task.done() or task.exception() is not None]
        for task in tasks.values():
            task.cancel()
        return left

    async def collect(self, run: RunDirectory) -> list[str]:
        """See `System`."""

        async def fetch(node: str, name: str) -> str | None:
            try:
                found = await self.host(node).get(
                    self.path(node, name), run.node_directory(node) / name, limit=_LOG_LIMIT
                )
            except RaftbedError as error:
                return f"{node}: {name} could not be fetched: {error}"
            return None if found else f"{node}: there is no {name}."

        outcomes = await asyncio.gather(*(fetch(node, name) for node in self.nodes for name in _FILES))
        return [outcome for outcome in outcomes if outcome]

    async def close(self) -> None:
        """See `System`."""
        await asyncio.gather(*(session.close() for session in set(self._sessions.values())))


def common_leader(samples: Iterable[StatusSample]) -> str | None:
    """The node that all of these follow, and that leads where it is one of them; None when they do not agree."""
    found = list(samples)
    followed = {sample.leader for sample in found}
    if len(followed) != 1:
        return None
    leader = followed.pop()
    agreed = all((sample.role == "leader") == (sample.node == leader) for sample in found)
    return leader if agreed else None


class _Status(msgspec.Struct):
    """What is read of a node's /status."""

    state: str
    term: int
    leader: str | None
    last_log_index: int
    commit_index: int
    last_applied: int
