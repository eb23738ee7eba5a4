"""Runs on hosts of an inventory: reached over plain SSH, at a distance, and lost in the middle of a run."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests_host_kinds import kept_lab
from tests_inventory import RelayThread, inventory_through_proxy, inventory_through_relays
from tests_machine import why_no_local_hosts

from raftbed.errors import HostError
from raftbed.hosts.blocking import fabric_connection
from raftbed.hosts.inventory_file import read_inventory
from raftbed.hosts.local import LocalPool
from raftbed.store import RunDirectory

OBSTACLE = why_no_local_hosts()
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "it can"),
    pytest.mark.asyncio(loop_scope="module"),
]

RAFTBED = str(Path(sys.executable).with_name("raftbed"))


async def raftbed(cwd: Path, *arguments: str, expect: int = 0) -> tuple[str, str]:
    """Run a command as a user would; what it wrote to standard output and standard error."""
    process = await asyncio.create_subprocess_exec(
        RAFTBED, *arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = (text.decode() for text in await asyncio.wait_for(process.communicate(), 120))
    assert process.returncode == expect, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool(tmp_path_factory):
    """Five machines, which nobody but the relays and proxies can tell from real ones."""
    made = LocalPool(["n1", "n2", "n3", "n4", "n5"], tmp_path_factory.mktemp("machines") / "lab")
    await made.start()
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def lab(tmp_path_factory):
    """Three hosts that somebody left up."""
    async with kept_lab(["n1", "n2", "n3"], tmp_path_factory.mktemp("kept")) as directory:
        yield directory


@pytest.fixture
def relays(pool):
    made = RelayThread(pool)
    yield made
    made.close()


@pytest.fixture
def distant(pool):
    """100 ms for each round trip between the controller and the machines."""
    made = RelayThread(pool, delay=0.05)
    yield made
    made.close()


def latest(cwd: Path) -> RunDirectory:
    return RunDirectory((cwd / "store/latest").resolve())


def phases(run: RunDirectory) -> dict[str, float]:
    """Phase to the seconds from its begin to the next one's."""
    begun = [(event.message, event.time / 1e9) for event in run.events() if event.kind == "phase"]
    return {name: after - before for (name, before), (_, after) in itertools.pairwise(begun)}


async def test_hosts_behind_a_proxy_command_are_machines_like_any_other(lab, tmp_path):
    file = inventory_through_proxy(lab, tmp_path)
    out, _ = await raftbed(tmp_path, "run", "smoke-test", "--hosts", str(file), "--time-limit", "2", "--json")
    assert json.loads(out)["validity"] == "valid"
    run = latest(tmp_path)
    assert run.plan().hosts == str(file)
    assert set(run.manifest().node_addresses) == {"n1", "n2", "n3"}


async def test_five_distant_hosts_are_deployed_to_and_a_partition_test_ends_valid(pool, distant, tmp_path):
    file = inventory_through_relays(pool, distant, tmp_path)
    arguments = ("run", "partition-test", "--hosts", str(file), "--time-limit", "7", "--seed", "1", "--json")
    out, _ = await raftbed(tmp_path, *arguments)
    assert json.loads(out)["validity"] == "valid"
    took = phases(latest(tmp_path))
    print({name: round(seconds, 1) for name, seconds in took.items()})
    assert took["hosts"] + took["deploy"] <= 30.0  # the bound of the issue, far above what it takes


async def test_fabric_and_paramiko_reach_hosts_of_an_inventory(lab, tmp_path):
    file = inventory_through_proxy(lab, tmp_path)
    entry = read_inventory(str(file))["n2"]

    def call() -> str:
        with fabric_connection(entry) as connection:
            return connection.run("hostname", hide=True, in_stream=False).stdout.strip()

    assert await asyncio.to_thread(call) == "n2"
    (tmp_path / "empty").write_text("")
    stranger = replace(entry, known_hosts=(str(tmp_path / "empty"),))
    with pytest.raises(HostError, match=rf"n2: the SSH host key of {entry.address}:22 is not known: SHA256:"):
        await asyncio.to_thread(fabric_connection, stranger)


async def test_the_cluster_commands_work_on_an_inventory_whether_or_not_a_cluster_is_known_there(lab, tmp_path):
    file = str(inventory_through_proxy(lab, tmp_path))
    await raftbed(tmp_path, "run", "smoke-test", "--hosts", file, "--time-limit", "1", "--keep", "--quiet")
    out, err = await raftbed(tmp_path, "cluster", "exec", "--hosts", file, "--", "hostname")
    assert (out, err) == ("n1 | n1\nn2 | n2\nn3 | n3\n", "")
    out, _ = await raftbed(tmp_path, "cluster", "logs", "--hosts", file, "n2", "--lines", "1000")
    assert "listens on" in out and {line.split()[0] for line in out.splitlines()} == {"n2"}
    out, _ = await raftbed(tmp_path, "cluster", "status", "--hosts", file, "--json")
    found = json.loads(out)
    assert found["healthy"] and found["cluster"] == file
    assert sorted(node["role"] for node in found["nodes"]) == ["follower", "follower", "leader"]
    await raftbed(tmp_path, "cluster", "stop", "--hosts", file, "n3")
    out, _ = await raftbed(tmp_path, "cluster", "status", "--hosts", file, expect=1)
    assert re.search(r"^n3 .* does not run: no pid file$", out, re.MULTILINE)
    assert f"The cluster on {file} is not well: 1 of 3 nodes is not well." in out
    # What a run leaves that failed before its node had written a pid file, or that made its directory anew.
    await raftbed(tmp_path, "cluster", "exec", "--hosts", file, "n1", "--", "rm", "/var/lib/raftbed/run/node.pid")
    out, _ = await raftbed(tmp_path, "cluster", "clean", "--hosts", file)
    first, *others = out.splitlines()
    assert re.fullmatch(r"n1  removed; ended a node that no pid file named \(process \d+\)", first)
    assert others == ["n2  removed", "n3  removed"]
    count = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -c 'raftbed[.]nodes'; true"
    out, _ = await raftbed(tmp_path, "cluster", "exec", "--hosts", file, "--", "sh", "-c", count)
    assert out == "n1 | 0\nn2 | 0\nn3 | 0\n"


async def until_working(cwd: Path, process: asyncio.subprocess.Process, operations: int = 100) -> RunDirectory:
    """Wait until the clients of a run have done something."""
    while True:
        assert process.returncode is None
        if (cwd / "store/latest").exists():
            run = latest(cwd)
            if run.history_path.exists() and sum(op.type == "ok" for op in run.history()) > operations:
                return run
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["hang", "lose"])
async def test_a_machine_lost_in_the_middle_of_a_run_ends_nothing_but_claims_about_it(pool, relays, tmp_path, how):
    """A machine that hangs, or whose way is gone: the run ends in time with what it has, and says so."""
    file = inventory_through_relays(pool, relays, tmp_path)
    command = ("run", "partition-test", "--hosts", str(file), "--nodes", "3", "--time-limit", "6", "--seed", "3")
    process = await asyncio.create_subprocess_exec(
        RAFTBED, *command, "--quiet", cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    run = await until_working(tmp_path, process)
    getattr(relays, how)("n3")
    out, err = (text.decode() for text in await asyncio.wait_for(process.communicate(), 150))
    assert process.returncode == 2, out + err  # unknown: nothing was shown either way
    assert run.manifest().state == "ended"
    errors = [event.message for event in run.events() if event.kind == "error"]
    assert any(message.startswith("n3: ") for message in errors), errors
    results = run.results()
    assert results is not None
    verdicts = {verdict.checker: verdict.validity for verdict in results.verdicts}
    assert verdicts["linearizable"] == "valid"
    assert verdicts["availability"] == "unknown"
    print({name: round(seconds, 1) for name, seconds in phases(run).items()}, errors)
    # The machine is well; it was its way that was lost. What the run left there is what the next one is told of.
    for name in ("n1", "n2", "n3"):
        host = pool.hosts[name]
        await host.run(["sh", "-c", 'kill -9 "$(cut -d" " -f1 < "$1")" 2>/dev/null; rm -f "$1"; true', "sh",
                        f"{host.home}/run/node.pid"])  # fmt: skip
