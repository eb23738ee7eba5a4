# ruff: noqa: ASYNC240  # a test may wait for the local disk
"""Local hosts keep the contract of a host, in every mode that works for the user who runs the tests.

As root, `test_hosts_as_user.py` runs this module again as an ordinary user.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests_host_kinds import why_no_local

from raftbed.deploy import deploy_all, start_detached
from raftbed.errors import DeployError, HostError
from raftbed.hosts import inventory, labs, make_pool, ssh
from raftbed.hosts.local import LocalHost, LocalPool, attach, list_labs, remove_lab, sweep
from raftbed.hosts.prerequisites import find_program, possible_modes

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

KINDS = (
    [("root", "openssh"), ("root", "embedded")] if os.geteuid() == 0 else [("multi", "openssh"), ("single", "embedded")]
)


def until(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout:.0f} s: {what}"
        time.sleep(0.02)


def processes_in(namespaces: set[str]) -> list[int]:
    """The processes of this machine that are in one of these network namespaces."""
    found = []
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):
            if os.readlink(path) in namespaces:
                found.append(int(path.parts[2]))
    return found


async def network_namespaces(pool: LocalPool) -> set[str]:
    """Those of all hosts of a pool, as /proc names them."""
    return {(await host.run(["readlink", "/proc/self/ns/net"])).stdout.strip() for host in pool.hosts.values()}


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


@pytest.fixture
def any_mode() -> None:
    mode = possible_modes()[0]
    reason = why_no_local(mode, "embedded")
    if reason:
        pytest.skip(reason)


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


# -- life and death of a pool ---------------------------------------------------------------------------------------


async def test_two_pools_do_not_touch_each_other_and_leave_nothing(any_mode, tmp_path):
    mounts = Path("/proc/self/mountinfo").read_text()
    interfaces = set(os.listdir("/sys/class/net"))
    first, second = (LocalPool(["n1", "n2"], tmp_path / name / "lab") for name in ("first", "second"))
    await asyncio.gather(first.start(), second.start())
    await first.hosts["n1"].put(b"first", "/var/whose")
    await second.hosts["n1"].put(b"second", "/var/whose")
    # Files that belong to another id than the user's own, where there are such ids.
    others = "mkdir -m 700 /srv/other && touch /srv/other/file && chown -R 1000:1000 /srv/other"
    await first.hosts["n1"].run(["sh", "-c", others], check=False)
    namespaces = await network_namespaces(first) | await network_namespaces(second)
    assert len(namespaces) == 4
    await first.close()
    assert (await second.hosts["n1"].run(["cat", "/var/whose"])).stdout == "second"
    await second.close()
    await second.close()
    assert processes_in(namespaces) == []
    assert not (tmp_path / "first/lab").exists()
    assert not (tmp_path / "second/lab").exists()
    assert Path("/proc/self/mountinfo").read_text() == mounts
    assert set(os.listdir("/sys/class/net")) - interfaces == set()
    assert not [lab for lab in list_labs(live=True) if tmp_path in lab.directory.parents]
    with pytest.raises(OSError) as failure:
        first.socket_factory((socket.AF_INET, socket.SOCK_STREAM, 0, "", ()))
    assert failure.value.errno == errno.ENETDOWN


async def test_files_are_private(any_mode, tmp_path):
    pool = LocalPool(["n1"], tmp_path / "lab")
    await pool.start()
    assert (tmp_path / "lab").stat().st_mode & 0o777 == 0o700
    for name in ("key", "lab.json", "inventory.json", "lab.log"):
        assert (tmp_path / "lab" / name).stat().st_mode & 0o777 == 0o600
    await pool.close()


async def test_a_long_path_is_no_obstacle(any_mode, tmp_path):
    directory = tmp_path / ("d" * 100) / ("e" * 100) / "lab with spaces"
    pool = make_pool("local", ["n1"], directory)
    await pool.start()
    await pool.hosts["n1"].run(["true"])
    await pool.close(keep=True)
    (lab,) = [lab for lab in list_labs() if lab.directory == directory]
    remove_lab(lab)
    assert not directory.exists()


async def test_a_directory_in_use_is_refused_and_left_alone(any_mode, tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab/precious").write_text("x")
    pool = LocalPool(["n1"], tmp_path / "lab")
    with pytest.raises(HostError, match="not empty"):
        await pool.start()
    assert (tmp_path / "lab/precious").exists()


async def test_a_failed_start_leaves_nothing(any_mode, tmp_path, monkeypatch):
    pool = LocalPool(["n1", "n2"], tmp_path / "lab", server="openssh")
    monkeypatch.setattr(
        "raftbed.hosts.local.find_program", lambda name: find_program(name) if name != "sshd" else "/bin/false"
    )
    monkeypatch.setattr("raftbed.hosts.local.LAB_TIMEOUT", 0.5)
    with pytest.raises(HostError, match=r"n[12]: "):
        await pool.start()
    assert not (tmp_path / "lab").exists()


async def test_forbidden_user_namespaces_end_with_reason_and_remedy_and_nothing_made(any_mode, tmp_path):
    start = "import asyncio, sys; from pathlib import Path; from raftbed.hosts.local import LocalPool\n"
    start += "asyncio.run(LocalPool(['n1'], Path(sys.argv[1])).start())"
    # The limit holds within the user namespace that it is set in, whose user is an ordinary one.
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    inside = ["unshare", "--user", "--map-user=1000", "--keep-caps", "sh", "-c", forbid, "sh"]
    process = await asyncio.create_subprocess_exec(
        *inside, sys.executable, "-c", start, str(tmp_path / "lab"), stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert b"HostError: local hosts cannot be made: user namespaces are switched off" in said
    assert b"sysctl -w user.max_user_namespaces" in said
    assert not (tmp_path / "lab").exists()


async def test_a_host_that_dies_under_a_command_is_noticed_by_its_lab(any_mode, tmp_path, monkeypatch):
    monkeypatch.setattr("raftbed.hosts.login._KEEPALIVE", 1000)  # SSH would never find out
    pool = LocalPool(["n1"], tmp_path / "lab")
    await pool.start()
    try:
        host = pool.hosts["n1"]
        running = asyncio.ensure_future(host.run(["sh", "-c", "touch /tmp/mark; exec sleep 1000"], timeout=40.0))
        await host.run(["sh", "-c", "until [ -e /tmp/mark ]; do sleep 0.02; done"])
        await pool._lab.request("crash", hosts=["n1"])  # nobody tells the host's controller
        with pytest.raises(HostError, match="n1: is down: its first process ended by itself"):
            await running
    finally:
        await pool.close()


async def test_kept_hosts_stay_and_are_found_and_removed(any_mode, tmp_path):
    pool = LocalPool(["n1", "n2"], tmp_path / "lab")
    await pool.start()
    namespaces = await network_namespaces(pool)
    await pool.close(keep=True)
    assert sweep() == [] or (tmp_path / "lab").exists()
    (lab,) = [lab for lab in list_labs() if lab.directory == tmp_path / "lab"]
    assert (lab.state, lab.hosts) == ("kept", ("n1", "n2"))
    assert processes_in(namespaces) != []
    entries, opener = attach(lab)
    host = ssh.SSHHost(entries["n2"])
    assert (await host.run(["hostname"])).stdout == "n2\n"
    await host.disconnect()
    with labs.call_lab(lab.directory, 30) as channel:
        channel.send(json.dumps({"id": 1, "do": "crash", "hosts": ["n2"]}).encode())
        channel.recv(1 << 16)
    with pytest.raises(OSError, match="Host is down"):  # and nobody waits for an answer
        ssh.open_connected(entries["n2"])
    ssh.open_connected(entries["n1"]).close()
    opener.close()
    remove_lab(lab)
    assert processes_in(namespaces) == []
    assert not (tmp_path / "lab").exists()


CONTROLLER = """
import asyncio, sys
from pathlib import Path
from raftbed.hosts.local import LocalPool

async def main():
    pool = LocalPool(["n1", "n2"], Path(sys.argv[1]))
    await pool.start()
    for host in pool.hosts.values():
        print((await host.run(["readlink", "/proc/self/ns/net"])).stdout, end="", flush=True)
        # Files that belong to another id than the user's own, where there are such ids.
        others = "mkdir -m 700 /srv/other && touch /srv/other/file && chown -R 1000:1000 /srv/other"
        await host.run(["sh", "-c", others], check=False)
    print("up", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


@contextlib.contextmanager
def controller_in_a_process(directory: Path) -> Iterator[tuple[subprocess.Popen[str], set[str]]]:
    """A controller with two hosts in `directory`, and the hosts' network namespaces."""
    process = subprocess.Popen([sys.executable, "-c", CONTROLLER, str(directory)], stdout=subprocess.PIPE, text=True)
    try:
        namespaces = set()
        for line in process.stdout:
            if line == "up\n":
                break
            namespaces.add(line.strip())
        assert len(namespaces) == 2
        yield process, namespaces
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_the_lab_dies_with_a_controller_that_was_killed(any_mode, tmp_path):
    with controller_in_a_process(tmp_path / "lab") as (controller, namespaces):
        (lab,) = [lab for lab in list_labs(live=True) if lab.directory == tmp_path / "lab"]
        assert lab.state == "live"
        with pytest.raises(HostError, match="run under way"):
            remove_lab(lab)
        assert processes_in(namespaces) != []
        controller.kill()
        controller.wait()
        until(lambda: not processes_in(namespaces), "the hosts' processes are gone")
        until(lambda: not (tmp_path / "lab").exists(), "the lab's files are gone")
    assert not [lab for lab in list_labs(live=True) if lab.directory == tmp_path / "lab"]


async def test_sweep_removes_what_a_dead_controller_and_lab_left_and_spares_the_living(any_mode, tmp_path):
    living = LocalPool(["n1"], tmp_path / "living")
    await living.start()
    with controller_in_a_process(tmp_path / "dead") as (controller, namespaces):
        # The lab first, so that it cannot tidy up; its hosts go with it.
        os.kill(json.loads((tmp_path / "dead/lab.json").read_text())["holder"], signal.SIGKILL)
        until(lambda: not processes_in(namespaces), "the hosts' processes are gone")
        controller.kill()
        controller.wait()
    assert (tmp_path / "dead/hosts/n1/disk").is_dir()
    assert labs.lab_info(tmp_path / "dead").state == "orphaned"
    assert any("dead" in name for name in sweep())
    assert not (tmp_path / "dead").exists()
    assert (await living.hosts["n1"].run(["echo", "alive"])).stdout == "alive\n"
    await living.close()


async def test_leftovers_from_before_a_reboot_of_the_machine_are_found_in_the_store(tmp_path):
    lab = tmp_path / "store/partition-test/20260101T000000.000/lab"
    lab.mkdir(parents=True)
    record = {**labs.controller_record(), "boot": "another", "kept": True, "holder": os.getpid(), "holder_start": 1}
    record["lab"] = {"hosts": [{"name": "n1"}]}
    (lab / "lab.json").write_text(json.dumps(record))
    assert [found.state for found in list_labs(tmp_path / "store") if found.directory == lab] == ["orphaned"]
    sweep(tmp_path / "store")
    assert not lab.exists()
