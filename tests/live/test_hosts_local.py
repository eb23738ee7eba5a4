# ruff: noqa: ASYNC240  # a test may wait for the local disk
"""Local hosts keep the contract of a host, in every mode that works for the user who runs the tests.

As root, `test_hosts_as_user.py` runs this module again as an ordinary user.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest
import pytest_asyncio
from tests_host_kinds import processes_in, why_no_local

from raftbed.deploy import deploy_all, start_detached
from raftbed.errors import DeployError, HostError
from raftbed.hosts import inventory, ssh
from raftbed.hosts.local import LocalHost, LocalPool
from raftbed.hosts.prerequisites import find_program

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

KINDS = (
    [("root", "openssh"), ("root", "embedded")] if os.geteuid() == 0 else [("multi", "openssh"), ("single", "embedded")]
)


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=KINDS, ids=lambda kind: "-".join(kind))
async def pool(request, tmp_path_factory):
    mode, server = request.param
    reason = why_no_local(mode, server)
    if reason:
        pytest.skip(reason)
    made = LocalPool(["n1", "n2", "n3"], tmp_path_factory.mktemp("lab") / "lab", mode=mode, server=server)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def host(pool) -> LocalHost:
    return pool.hosts["n1"]


# -- the SSH server ---------------------------------------------------------------------------------------------


async def test_a_broken_pipe_ends_commands_but_never_the_ssh_server(pool, host):
    # It takes luck to write just when a command has closed its input, so the signal's disposition is looked at.
    async def ignored(process: str) -> bool:
        status = (await host.run(["grep", "SigIgn", f"/proc/{process}/status"])).stdout
        return bool(int(status.split()[1], 16) >> (signal.SIGPIPE - 1) & 1)

    # OpenSSH is process 1 of its host; the embedded server is the first child of a process 1 that only reaps.
    server = "1" if pool.server == "openssh" else (await host.run(["cat", "/proc/1/task/1/children"])).stdout.split()[0]
    assert await ignored(server)
    assert not await ignored("self")


# -- what a host is -------------------------------------------------------------------------------------------------


async def test_hosts_have_addresses_and_names_of_their_own_and_reach_each_other(pool):
    script = "import socket,sys; s=socket.create_connection((sys.argv[1],22),5); print(s.recv(4), s.getsockname()[0])"
    one, two = pool.hosts["n1"], pool.hosts["n2"]
    assert len({host.address for host in pool.hosts.values()}) == 3
    for target in (two.address, "n2"):
        result = await one.run([one.python, "-S", "-c", script, target])
        assert result.stdout.split() == ["b'SSH-'", one.address]
    if find_program("ping"):
        await one.run(["ping", "-c", "1", "-W", "5", two.address])


async def test_hosts_see_nothing_of_the_machines_network(pool, host):
    interfaces = await host.run(["ls", "/sys/class/net"])
    assert set(interfaces.stdout.split()) == {"lo", "eth0"}
    assert "default" not in (await host.run(["ip", "route"])).stdout
    assert "inet6" not in (await host.run(["ip", "address"])).stdout
    with socket.create_server(("127.0.0.1", 0)) as machine:
        script = "import socket,sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 2)"
        refused = await host.run([host.python, "-S", "-c", script, str(machine.getsockname()[1])], check=False)
    assert "ConnectionRefusedError" in refused.stderr
    assert "br0" not in os.listdir("/sys/class/net") or "v1" not in os.listdir("/sys/class/net")


async def test_hosts_see_only_their_own_processes_and_files(pool, host):
    marker = f"sleep {10_000 + secrets.randbelow(10_000)}"
    other = pool.hosts["n2"]
    await start_detached(other, marker.split(), environment={}, directory="/tmp", log="/tmp/log")
    script = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
    assert marker in (await other.run(["sh", "-c", script])).stdout
    assert marker not in (await host.run(["sh", "-c", script])).stdout
    await host.put(b"mine", "/var/tmp/mine")
    assert (await other.run(["test", "-e", "/var/tmp/mine"], check=False)).status == 1
    assert not Path("/var/tmp/mine").exists()
    written = await host.run(["sh", "-c", "echo x > /usr/raftbed-was-here"], check=False)
    assert written.status != 0


async def test_secrets_of_the_machine_stay_out(host):
    shadow = (await host.run(["cat", "/etc/shadow"])).stdout
    assert all(line.split(":")[1] == "*" for line in shadow.splitlines())
    people = (await host.run(["cut", "-d:", "-f3", "/etc/passwd"])).stdout.split()
    assert not [uid for uid in people if 1000 <= int(uid) < 60000]


async def test_a_host_cannot_move_the_machines_clock_or_settings(host):
    before = Path("/proc/sys/kernel/panic").read_text()
    assert (await host.run(["date", "-s", "2001-01-01"], check=False)).status != 0
    assert (await host.run(["sh", "-c", "echo 77 > /proc/sys/kernel/panic"], check=False)).status != 0
    assert Path("/proc/sys/kernel/panic").read_text() == before


async def test_devices_are_few_and_work(host):
    script = (
        "echo x > /dev/null && head -c 8 /dev/zero | wc -c && head -c 8 /dev/urandom | wc -c && echo y > /dev/shm/y"
    )
    assert (await host.run(["sh", "-c", script])).stdout.split() == ["8", "8"]
    listed = (await host.run(["ls", "/dev"])).stdout.split()
    assert {"null", "pts", "ptmx", "shm"} <= set(listed)
    assert not [name for name in listed if name.startswith(("sd", "vd", "nvme", "mem", "kmsg"))]


async def test_the_controllers_interpreter_and_packages_work_there(host):
    assert host.shares_interpreter
    assert host.python == os.path.abspath(sys.executable)
    await host.run([host.python, "-c", "import aiohttp, msgspec, raftbed.nodes"], timeout=30.0)


async def test_orphans_are_reaped_by_process_1(host):
    await host.run(["sh", "-c", "(sh -c 'sleep 0.05' &) ; (exit 0 &)"])
    script = "while grep -l '^State:.*Z' /proc/[0-9]*/status 2>/dev/null; do sleep 0.02; done"
    await host.run(["sh", "-c", script], timeout=10.0)


# -- crash and reboot -----------------------------------------------------------------------------------------------


async def test_a_crash_takes_everything_but_the_disk_and_a_reboot_brings_it_back(pool):
    host = pool.hosts["n3"]
    fresh = (await host.run(["ls", "/tmp"])).stdout  # a controller's Python that lives in /tmp is shown there
    await host.put(b"kept", "/var/lib/kept")
    await host.put(b"gone", "/tmp/gone")
    started = await start_detached(
        host, ["sleep", "1000"], environment={}, directory=f"{host.home}/run", log=f"{host.home}/run/log"
    )
    assert started.pid > 1
    address = host.address
    namespaces = {(await host.run(["readlink", "/proc/self/ns/net"])).stdout.strip()}

    await host.crash()
    assert processes_in(namespaces) == []
    with pytest.raises(HostError, match="n3: is down"):
        await host.run(["true"])

    await host.reboot()
    assert host.address == address
    assert (await host.run(["cat", "/var/lib/kept"])).stdout == "kept"
    assert (await host.run(["ls", "/tmp"])).stdout == fresh
    # Peers reach it at once: its hardware address is the old one.
    script = f"import socket; print(socket.create_connection(({address!r}, 22), 5).recv(4))"
    peer = pool.hosts["n1"]
    assert "SSH-" in (await peer.run([peer.python, "-S", "-c", script])).stdout


async def test_reboots_of_one_host_leave_the_others_reachable(pool):
    """The bridge keeps its hardware address whichever ports come and go, or ARP entries for it go stale."""
    script = "awk '$1 == \"10.0.255.254\" {print $4}' /proc/net/arp"
    known = (await pool.hosts["n1"].run(["sh", "-c", script])).stdout.split()
    for _ in range(3):
        await pool.hosts["n3"].reboot()
        pool.hosts["n1"].abandon()
        assert (await pool.hosts["n1"].run(["sh", "-c", script])).stdout.split() == known == ["02:52:42:ff:ff:fe"]


async def test_a_reboot_of_a_host_that_is_up_resets_it(pool):
    host = pool.hosts["n3"]
    before = (await host.run(["readlink", "/proc/self/ns/pid"])).stdout
    await host.reboot()
    assert (await host.run(["readlink", "/proc/self/ns/pid"])).stdout != before


# -- sockets, other libraries ----------------------------------------------------------------------------------------


async def test_sockets_from_any_thread_reach_the_hosts(pool):
    entry = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ())
    answers = []

    def ask(address: str) -> None:
        with pool.socket_factory(entry) as made:
            made.settimeout(10)
            made.connect((address, 22))
            answers.append(made.recv(4))

    threads = [threading.Thread(target=ask, args=(host.address,)) for host in pool.hosts.values() for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert answers == [b"SSH-"] * 15
    with pytest.raises(OSError, match="not for hosts"):
        pool.socket_factory((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", ()))


async def test_fabric_and_paramiko_reach_the_same_hosts(pool):
    def call() -> list[str]:
        entry = pool.inventory.entry("n2")
        with ssh.fabric_connection(entry) as connection:
            said = [connection.run("hostname", hide=True, in_stream=False).stdout.strip()]
            said.append(connection.run("tty", hide=True, in_stream=False, pty=True).stdout.strip())
        with ssh.paramiko_client(entry) as client, client.open_sftp() as files:
            said.append(files.stat("/etc/hostname").__class__.__name__)
        return said

    assert await asyncio.to_thread(call) == ["n2", "/dev/pts/0", "SFTPAttributes"]


async def test_a_host_with_another_key_is_refused(pool):
    entries = pool.inventory
    impostor = inventory.InventoryEntry(
        name="n1",
        address=entries["n2"].address,
        key=entries["n1"].key,
        host_key=entries["n1"].host_key,
        open_socket=pool.socket_factory,
    )
    with pytest.raises(HostError, match=r"n1: .*another SSH host key"):
        await ssh.connect(impostor)
    with pytest.raises(HostError, match="n1"):
        await asyncio.to_thread(ssh.paramiko_client, impostor)


# -- processes and deployment ---------------------------------------------------------------------------------------


async def test_a_host_gets_a_wheelhouse_when_it_shares_no_interpreter(pool, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "wheels"
    host = pool.hosts["n1"]
    try:
        made = (await deploy_all([host], wheelhouse=True, cache=cache))["n1"]
    except DeployError as error:
        if "package index" in str(error) or "pip" in str(error):
            pytest.skip(f"the package index is not reachable: {error}")
        raise
    code = "import aiohttp, msgspec, raftbed.nodes; print(aiohttp.__file__); print(msgspec.__file__)"
    # -S: none of the controller's own packages are in sight.
    ran = await host.run(["env", f"PYTHONPATH={made.pythonpath}", *made.python, "-S", "-c", code], timeout=30.0)
    assert all(line.startswith(f"{host.home}/wheels/") for line in ran.stdout.split())
