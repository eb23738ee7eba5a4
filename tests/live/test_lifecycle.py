"""Runs that go wrong on the way: hosts that die while they are set up, or while clients are at work."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests_machine import why_no_local_hosts

from raftbed.checking import Limits, check_run
from raftbed.errors import HostError
from raftbed.hosts import make_pool
from raftbed.model import Plan
from raftbed.plan import PlanSettings, make_plan
from raftbed.run import Run
from raftbed.stopping import StopSignal
from raftbed.store import RunDirectory, Store
from raftbed.systems import raft as raft_system

OBSTACLE = why_no_local_hosts()
pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "it can")]


def plan(test: str = "smoke-test", **changes: object) -> Plan:
    settings = PlanSettings(test=test, nodes=3, time_limit=3.0, recovery_timeout=5.0, **changes)  # type: ignore[arg-type]
    return make_plan(settings, seed=1)


def prepared(root: Path, made: Plan) -> tuple[Run, RunDirectory]:
    directory = Store(root / "store").new_run(made.test)
    return Run(made, directory, command="raftbed run", stop=StopSignal()), directory


async def lose(host: object) -> None:
    """The host goes down, and nobody in the run is told."""
    await host._lab.request("crash", hosts=[host.name])  # type: ignore[attr-defined]


async def test_a_host_that_dies_during_deployment_is_named_and_everything_is_taken_down(tmp_path, monkeypatch):
    deploy_all = raft_system.deploy_all

    async def deploy_all_but_one(hosts, **options):
        listed = list(hosts)
        await lose(listed[1])
        return await deploy_all(listed, **options)

    monkeypatch.setattr(raft_system, "deploy_all", deploy_all_but_one)
    run, directory = prepared(tmp_path, plan())
    with pytest.raises(HostError, match="n2: is down: its first process ended by itself"):
        await run.execute()
    assert directory.manifest().state == "failed"
    errors = [event.message for event in directory.events() if event.kind == "error"]
    assert errors[0].startswith("n2: is down")  # what went wrong first is what is shown, whatever failed after it
    assert not (directory.path / "lab").exists()


async def test_a_node_that_ends_at_its_start_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(raft_system, "PORT", 22)  # where the SSH server listens already
    run, directory = prepared(tmp_path, plan())
    with pytest.raises(
        HostError, match=r"n[123]: the node ended by itself at its start\. .*cannot listen on 0.0.0.0:22"
    ):
        await run.execute()
    assert all(directory.node_file(node, "node.log") for node in ("n1", "n2", "n3"))
    assert not (directory.path / "lab").exists()


async def test_a_host_lost_under_way_is_named_and_its_run_claims_nothing_about_it(tmp_path, monkeypatch):
    pools = []

    def make_pool_and_tell(*arguments, **options):
        pools.append(make_pool(*arguments, **options))
        return pools[0]

    monkeypatch.setattr("raftbed.run.make_pool", make_pool_and_tell)
    run, directory = prepared(tmp_path, plan("partition-test", faults=[]))
    running = asyncio.ensure_future(run.execute())
    while not (directory.history_path.exists() and sum(op.type == "ok" for op in directory.history()) > 100):
        assert not running.done()
        await asyncio.sleep(0.05)
    await lose(pools[0].hosts["n3"])
    assert await running == "ended"
    lost = [event for event in directory.events() if event.kind == "error" and event.detail.get("host") == "n3"]
    assert lost and "is down: its first process ended by itself" in lost[0].message
    results = check_run(directory, limits=Limits())
    verdicts = {verdict.checker: verdict.validity for verdict in results.verdicts}
    assert verdicts["linearizable"] == "valid"  # two of three nodes went on
    assert verdicts["availability"] == "unknown"
    assert results.validity == "unknown"
    assert not (directory.path / "lab").exists()
