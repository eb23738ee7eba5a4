"""A run whose hosts, nodes and faults are faked: what the run itself does when things go wrong around it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests_nemesis import Control, FakeFault
from tests_support import make_plan_for_tests

from raftbed.faults.nemesis import Nemesis
from raftbed.model import FaultStep, Plan
from raftbed.record import LineWriter
from raftbed.run import Run
from raftbed.stopping import StopSignal
from raftbed.store import RunDirectory, StatusSample, Store
from raftbed.workloads.base import Answer

Hook = Callable[[], Awaitable[Any]]


class Bed:
    """Hosts, nodes and faults of one run, all faked; `hooks` stand for what a step does, by its name.

    Attributes:
        steps: what the run asked of them, in order.
        hooks: "install", "lost_hosts", ...: awaited in place of doing nothing.
        fault: the one fault there is.
        stop: how the run is stopped.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.steps: list[str] = []
        self.hooks: dict[str, Hook] = {}
        self.fault = FakeFault()
        self.stop = StopSignal()
        self.full: set[str] = set()  # names of files that cannot be written
        self._store = Store(root / "store")
        self._write = LineWriter.write
        monkeypatch.setattr(LineWriter, "write", lambda writer, record: self._write_unless_full(writer, record))
        monkeypatch.setattr("raftbed.run.make_pool", lambda *arguments, **options: Pool(self))
        monkeypatch.setattr("raftbed.run.preflight", self._preflight)
        monkeypatch.setattr("raftbed.run.RaftSystem", lambda pool, plan: System(self))
        monkeypatch.setattr("raftbed.run.Nemesis", self._nemesis)

    def prepared(self, *, keep: bool = False, **changes: Any) -> tuple[Run, RunDirectory]:
        """A run that is still to be executed, and its directory."""
        plan: Plan = make_plan_for_tests(nodes=3, **{"time_limit": 60.0, "rate": 0.0, "concurrency": 2, **changes})
        directory = self._store.new_run(plan.test)
        return Run(plan, directory, command="raftbed run", stop=self.stop, keep=keep), directory

    async def step(self, name: str, default: Any = None) -> Any:
        """Note a step, and do what its hook does."""
        self.steps.append(name)
        return await self.hooks[name]() if name in self.hooks else default

    async def twice(self) -> None:
        """Ctrl-C twice in the midst of a step that never ends."""
        self.stop.interrupt()
        self.stop.interrupt()
        await asyncio.Event().wait()

    def _write_unless_full(self, writer: LineWriter, record: Any) -> None:
        if writer.path.name in self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._write(writer, record)

    async def _preflight(self, hosts: Any, needs: Any) -> list[str]:
        return await self.step("preflight", [])

    def _nemesis(self, **arguments: Any) -> Nemesis:
        nemesis = Nemesis(**arguments, faults={"partition": self.fault})
        nemesis.prepare = lambda: self.step("prepare")  # type: ignore[method-assign]
        return nemesis


class Pool:
    """Implements `HostPool`; it has no hosts at all."""

    socket_factory = None

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self.hosts: dict[str, Any] = {}

    async def start(self) -> None:
        await self._bed.step("hosts")

    async def close(self, *, keep: bool = False) -> None:
        await self._bed.step("close, keeping" if keep else "close")


class System:
    """Implements `System`: it has every operation acknowledged."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self.control = Control()
        self.installed: dict[str, Any] = {}

    async def wait_ready(self, *, timeout: float) -> bool:
        return await self._bed.step("wait_ready", default=True)

    async def lost_hosts(self) -> dict[str, str]:
        return await self._bed.step("lost_hosts", {})

    async def unexpected_deaths(self, held_down: set[str]) -> dict[str, Any]:
        return {}

    async def status(self, node: str) -> StatusSample:
        return StatusSample(0, node, reachable=False)

    async def kill(self, *, timeout: float) -> list[str]:
        return await self._bed.step("kill", [])

    async def collect(self, run: RunDirectory) -> list[str]:
        return await self._bed.step("collect", [])

    def connection(self) -> System:
        return self

    async def attempt(self, node: str, request: Any, **options: Any) -> Answer:
        await self._bed.step("attempt")
        await asyncio.sleep(0.001)
        return Answer("ok", value=None, node=node)

    def __getattr__(self, name: str) -> Callable[[], Awaitable[Any]]:
        if name not in {"install", "start", "restart_dead", "stop", "close"}:
            raise AttributeError(name)
        return lambda: self._bed.step(f"{name} nodes" if name != "close" else "close connections")


def cut(at: float = 0.0, until: float = 50.0) -> FaultStep:
    """A partition of the plan, seconds from the beginning of the clients' phase."""
    return FaultStep("f01", "partition", "one", at, until, ("n1", "n2", "n3"))
