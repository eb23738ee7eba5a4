# ruff: noqa: ASYNC221  # a test may wait for the local disk and for processes
"""Containers keep the contract of a host, and leave nothing in the engine.

The engine is the tests' own (see `tests_docker`): nothing of it is seen outside its namespaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytest_asyncio
from tests_docker import have_wheels, private_engine, why_no_engine

from raftbed.deploy import deploy_all, start_detached
from raftbed.errors import HostError
from raftbed.hosts import docker_runs, labs, make_pool
from raftbed.hosts.docker import CAPABILITIES, DockerPool
from raftbed.hosts.engine import find_engine
from raftbed.store import RunDirectory

OBSTACLE = why_no_engine()
pytestmark = [
    pytest.mark.live,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "it can"),
]
ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """An engine of the tests' own; the wheels for its hosts are here already, since it has no way to the outside."""
    cache = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(cache))
    patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    try:
        asyncio.run(have_wheels(tmp_path_factory.mktemp("home")))
        with private_engine() as environment:
            yield environment
    finally:
        patch.undo()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool(engine, tmp_path_factory):
    made = make_pool("docker", ["n1", "n2", "n3"], tmp_path_factory.mktemp("pool") / "lab")
    await made.start()
    yield made
    await made.close()


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def in_engine() -> tuple[list[str], list[str]]:
    """The containers and the networks that are raftbed's."""
    label = ("--filter", f"label={docker_runs.RUN_LABEL}", "--format")
    containers = docker("ps", "--all", *label, "{{.Names}}").split()
    networks = docker("network", "ls", *label, "{{.Name}}").split()
    return sorted(containers), sorted(networks)


# -- the contract of a host -----------------------------------------------------------------------------------------


async def test_a_command_runs_as_the_administrator_of_the_host(pool):
    result = await pool.hosts["n2"].run(["sh", "-c", "id -u; hostname; cat", "$HOME"], stdin=b"input")
    assert result.stdout == "0\nn2\ninput"


async def test_files_go_there_and_back_with_their_mode(pool, tmp_path):
    host = pool.hosts["n1"]
    await host.put(b"secret\n" * 100_000, "/srv/some/file", mode=0o640)
    assert (await host.run(["stat", "-c", "%a %U", "/srv/some/file"])).stdout == "640 root\n"
    assert await host.get("/srv/some/file", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"secret\n" * 100_000
    assert not await host.get("/srv/none", tmp_path / "none")


async def test_hosts_reach_each_other_at_their_addresses_in_a_network_closed_to_the_outside(pool):
    addresses = [host.address for host in pool.hosts.values()]
    assert len(set(addresses)) == 3
    for host in pool.hosts.values():
        assert host.address in (await host.run(["hostname", "-I"])).stdout.split()
        for address in addresses:
            await host.run(["ping", "-c", "1", "-W", "2", address])
    (network,) = json.loads(docker("network", "inspect", f"raftbed-{pool.run}"))
    assert network["Internal"]


async def test_a_host_can_do_what_faults_need_and_no_more(pool):
    host = pool.hosts["n1"]
    status = (await host.run(["cat", "/proc/self/status"])).stdout
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    numbers = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "KILL": 5, "SETGID": 6, "SETUID": 7}
    numbers |= {"NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_CHROOT": 18}
    assert held == sum(1 << numbers[name] for name in CAPABILITIES)
    assert "NoNewPrivs:\t1" in status
    await host.run(["nft", "add", "table", "inet", "trial"])
    await host.run(["nft", "delete", "table", "inet", "trial"])
    before = time.time()
    assert (await host.run(["date", "-s", "2001-01-01"], check=False)).status != 0
    assert time.time() - before < 1000  # the machine's clock is where it was


async def test_keys_are_private_on_both_sides_and_in_no_image(pool):
    host = pool.hosts["n1"]
    listed = (await host.run(["stat", "-c", "%n %a %u", "/etc/raftbed", "/etc/raftbed/host_key"])).stdout
    assert listed == "/etc/raftbed 700 0\n/etc/raftbed/host_key 600 0\n"
    assert host.entry.key is not None
    assert host.entry.key.stat().st_mode & 0o777 == 0o600
    described = docker("inspect", host.container) + docker("history", "--no-trunc", os.environ["RAFTBED_DOCKER_IMAGE"])
    assert "PRIVATE KEY" not in described
    assert "ssh-ed25519" not in described


async def test_orphans_are_reaped_by_process_1(pool):
    host = pool.hosts["n1"]
    count = (
        "n=0; for s in /proc/[0-9]*/stat; do read -r _ _ state _ < $s && [ $state = Z ] && n=$((n+1)); done; echo $n"
    )
    await host.run(["sh", "-c", "setsid sh -c 'sleep 0.05 & exit' & wait"])
    await host.run(["sh", "-c", f"until [ $({count}) = 0 ]; do sleep 0.02; done"])
    assert "sshd" not in (await host.run(["cat", "/proc/1/comm"])).stdout


async def test_a_crash_takes_everything_but_the_disk_and_a_reboot_brings_it_back(pool):
    host, peer = pool.hosts["n3"], pool.hosts["n1"]
    await host.put(b"kept", "/var/lib/kept")
    await host.put(b"gone", "/tmp/gone")
    await start_detached(host, ["sleep", "1000"], environment={}, directory="/srv", log="/srv/log")
    address = host.address
    await host.crash()
    with pytest.raises(HostError, match="n3: is down: it was crashed"):
        await host.run(["true"])
    assert (await peer.run(["ping", "-c", "1", "-W", "1", address], check=False)).status != 0

    await host.reboot()
    assert address in (await host.run(["hostname", "-I"])).stdout.split()
    assert (await host.run(["cat", "/var/lib/kept"])).stdout == "kept"
    assert (await host.run(["ls", "/tmp"])).stdout == ""
    assert (await host.run(["pgrep", "-x", "sleep"], check=False)).status == 1
    await peer.run(["ping", "-c", "1", "-W", "5", address])


async def test_a_reboot_of_a_host_that_is_up_resets_it(pool):
    host = pool.hosts["n3"]
    await host.run(["touch", "/run/mark"])  # /run is made anew at each boot
    await host.reboot()
    assert (await host.run(["ls", "/run/mark"], check=False)).status != 0


async def test_a_container_that_ends_by_itself_says_so(pool):
    host = pool.hosts["n3"]
    docker("kill", host.container)
    with pytest.raises(HostError, match="n3: its container is exited, with status 137"):
        await host.run(["true"], timeout=2.0)
    await host.reboot()
    await host.run(["true"])


async def test_nodes_are_deployed_with_wheels_for_the_hosts_own_python(pool):
    made = await deploy_all(pool.hosts.values())
    host, installed = pool.hosts["n1"], made["n1"]
    assert installed.python[0] == "/usr/bin/python3"
    code = "import aiohttp, msgspec, raftbed.nodes; print(aiohttp.__file__); print(msgspec.__file__)"
    ran = await host.run(["env", f"PYTHONPATH={installed.pythonpath}", *installed.python, "-c", code], timeout=30.0)
    assert all(line.startswith(f"{host.home}/wheels/") for line in ran.stdout.split())


# -- what is left behind --------------------------------------------------------------------------------------------


def controller(directory: Path, ending: str) -> subprocess.CompletedProcess[str]:
    """A process that makes two hosts and then ends, in its way."""
    code = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from raftbed.hosts import make_pool\n"
        "async def main():\n"
        f"    pool = make_pool('docker', ['n1', 'n2'], Path({str(directory)!r}))\n"
        "    await pool.start()\n"
        "    print(pool.run, flush=True)\n"
        f"    {ending}\n"
        "asyncio.run(main())\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def raftbed(*arguments: str, store: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raftbed.cli", *arguments, "--store", str(store)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


async def test_a_pool_that_is_closed_leaves_nothing(engine, tmp_path):
    before = in_engine()
    made = DockerPool(["a", "b"], tmp_path / "lab")
    await made.start()
    assert len(in_engine()[0]) == len(before[0]) + 2
    await made.close()
    await made.close()
    assert in_engine() == before
    assert not (tmp_path / "lab").exists()
    assert made.run not in {record["run"] for record in docker_runs.remembered()}


async def test_a_start_that_fails_leaves_nothing_and_says_what_the_container_said(engine, tmp_path, monkeypatch):
    before = in_engine()
    monkeypatch.setattr("raftbed.hosts.docker._BOOT_SCRIPT", "echo no sshd here >&2; exit 7")
    made = DockerPool(["n1", "n2"], tmp_path / "lab")
    with pytest.raises(HostError, match=r"n\d: its container is exited, with status 7: no sshd here"):
        await made.start()
    assert in_engine() == before
    assert not (tmp_path / "lab").exists()


async def test_what_a_killed_controller_left_is_removed_by_the_next_command(pool, tmp_path):
    left = controller(tmp_path / "lab", "os.kill(os.getpid(), 9)").stdout.strip()
    assert f"raftbed-{left}" in in_engine()[1]
    assert raftbed("run", "smoke-test", "--dry-run", store=tmp_path).returncode == 0
    containers, networks = in_engine()
    assert not [name for name in containers + networks if left in name]
    assert not (tmp_path / "lab").exists()
    assert f"raftbed-{pool.run}-n1" in containers  # of a live controller: not touched


async def test_kept_hosts_stay_until_they_are_cleaned_away(pool, tmp_path):
    before = in_engine()
    kept = controller(tmp_path / "lab", "await pool.close(keep=True)").stdout.strip()
    assert raftbed("run", "smoke-test", "--dry-run", store=tmp_path).returncode == 0
    assert f"raftbed-{kept}-n1" in in_engine()[0]
    assert f"kept docker hosts raftbed-{kept}-n1" in raftbed("doctor", store=tmp_path).stdout
    cleaned = raftbed("clean", store=tmp_path)
    assert f"removed kept docker hosts of the run {kept}" in cleaned.stdout + cleaned.stderr
    assert in_engine() == before


async def test_clean_finds_by_their_labels_what_the_registry_forgot(pool, tmp_path):
    left = controller(tmp_path / "lab", "os.kill(os.getpid(), 9)").stdout.strip()
    docker_runs.forget(left)
    cleaned = raftbed("clean", store=tmp_path)
    assert f"removed orphaned docker hosts raftbed-{left}-n1, raftbed-{left}-n2" in cleaned.stdout + cleaned.stderr
    assert not [name for name in in_engine()[0] if left in name]


async def test_what_another_machine_or_user_made_is_left_alone(pool, monkeypatch):
    mine = docker_runs.owner()
    for strange in ({"machine": "elsewhere"}, {"user": 12345}, {"processes": "pid:[1]"}):
        assert docker_runs.state_of({**mine, **strange}) == "foreign"
    assert docker_runs.state_of({**mine, "boot": "an earlier one"}) == "orphaned"
    assert docker_runs.state_of({**mine, "controller_start": 1}) == "orphaned"
    assert docker_runs.state_of(mine) == "live"
    found = await docker_runs.list_runs(await find_engine())
    assert [(run.run, run.state, len(run.hosts)) for run in found] == [(pool.run, "live", 3)]


# -- errors with a remedy -------------------------------------------------------------------------------------------


async def test_an_image_that_is_not_there_is_named_with_the_remedy(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("RAFTBED_DOCKER_IMAGE", "nobody/nothing:9")
    with pytest.raises(HostError, match=r"names the image 'nobody/nothing:9', .* docker pull nobody/nothing:9"):
        await DockerPool(["n1"], tmp_path / "lab").start()


async def test_without_image_and_registry_the_error_says_how_to_make_one(engine, tmp_path, monkeypatch):
    monkeypatch.delenv("RAFTBED_DOCKER_IMAGE")
    with pytest.raises(HostError, match=r"raftbed-host:1 could not be built: .* docker/make-image"):
        await DockerPool(["n1"], tmp_path / "lab").start()
    assert not (tmp_path / "lab").exists()


# -- a run, and the compose file ------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
async def test_a_partition_test_on_containers_is_valid_with_its_faults_proved(pool, tmp_path):
    before = in_engine()
    ended = raftbed(
        *("run", "partition-test", "--hosts", "docker", "--nodes", "3", "--time-limit", "10", "--seed", "1"),
        store=tmp_path / "store",
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    run = RunDirectory((tmp_path / "store" / "latest").resolve())
    states = [(event.kind, event.state) for event in run.faults() if event.kind == "partition"]
    assert ("partition", "proved") in states
    assert states.count(("partition", "proved")) == states.count(("partition", "healed"))
    assert in_engine() == before


async def test_the_compose_file_brings_up_hosts_that_let_the_key_in(engine, tmp_path):
    compose = shutil.which("docker-compose")
    command = [compose] if compose else ["docker", "compose"]
    if subprocess.run([*command, "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs docker-compose (apt-get install docker-compose)")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    environment = {**os.environ, "RAFTBED_AUTHORIZED_KEY": (tmp_path / "key.pub").read_text().strip()}
    command += ["--project-name", "raftbed-trial", "--file", str(ROOT / "docker/compose.yaml")]

    def call(*arguments: str) -> str:
        return subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, check=True, timeout=120
        ).stdout

    login = ["ssh", "-i", str(tmp_path / "key"), "-o", f"UserKnownHostsFile={tmp_path}/known", "-F", "none"]
    login += ["-o", "StrictHostKeyChecking=accept-new", "-o", "BatchMode=yes", "root@172.30.82.12", "hostname"]
    try:
        call("up", "--detach", "--no-build", "n1", "n2")
        deadline = time.monotonic() + 30
        while (answer := subprocess.run(login, capture_output=True, text=True, check=False)).returncode != 0:
            assert time.monotonic() < deadline, answer.stderr
            await asyncio.sleep(0.1)
        assert answer.stdout == "n2\n"
        (described,) = json.loads(docker("inspect", call("ps", "--quiet", "n2").strip()))
        assert {name.removeprefix("CAP_") for name in described["HostConfig"]["CapAdd"]} == set(CAPABILITIES)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            call("down", "--volumes")


async def test_the_registry_is_empty_when_all_pools_are_closed(pool):
    """The last test of the module: what is there is this pool's own."""
    assert [record["run"] for record in docker_runs.remembered()] == [pool.run]
    assert len(labs.registries()) >= 1
