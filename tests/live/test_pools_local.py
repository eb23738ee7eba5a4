# ruff: noqa: ASYNC240  # a test may wait for the local disk
"""Pools of local hosts: what they are made with, what they leave, and who takes away what a dead controller left.

As root, `test_hosts_as_user.py` runs this module again as an ordinary user.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests_host_kinds import network_namespaces, processes_in, why_no_local

from raftbed.errors import HostError
from raftbed.hosts import labs, make_pool, ssh
from raftbed.hosts.local import LocalPool, attach, list_labs, remove_lab, sweep
from raftbed.hosts.prerequisites import find_program, possible_modes

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


def until(condition: Callable[[], bool], what: str, timeout: float = 20.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {timeout:.0f} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def any_mode() -> None:
    mode = possible_modes()[0]
    reason = why_no_local(mode, "embedded")
    if reason:
        pytest.skip(reason)


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


async def sweep_in_another_process_namespace() -> None:
    """What every command does first, where the pids of the others are not seen: in a container, say."""
    inside = [find_program("unshare"), *(["--user", "--map-root-user"] if os.geteuid() else []), "--pid", "--fork"]
    script = "from raftbed.hosts.labs import sweep; sweep()"
    process = await asyncio.create_subprocess_exec(*inside, "--mount-proc", sys.executable, "-c", script)
    assert await process.wait() == 0


async def test_hosts_are_spared_from_another_process_namespace_as_long_as_anything_of_them_lives(
    any_mode, tmp_path, monkeypatch
):
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    pool = LocalPool(["n1"], tmp_path / "lab")
    await pool.start()
    holder = json.loads((tmp_path / "lab/lab.json").read_text())["holder"]
    try:
        await sweep_in_another_process_namespace()
        assert (await pool.hosts["n1"].run(["echo", "alive"])).stdout == "alive\n"
        assert (tmp_path / "lab/key").exists()
        await pool.close(keep=True)
        await sweep_in_another_process_namespace()
        assert [lab.state for lab in list_labs()] == ["kept"]
    finally:
        os.kill(holder, signal.SIGKILL)
    until(lambda: labs.start_time(holder) == 0, "the lab is gone")
    await sweep_in_another_process_namespace()
    assert not (tmp_path / "lab").exists()
    assert list((tmp_path / "runtime").iterdir()) == []


async def test_leftovers_from_before_a_reboot_of_the_machine_are_found_in_the_store(tmp_path):
    lab = tmp_path / "store/partition-test/20260101T000000.000/lab"
    lab.mkdir(parents=True)
    record = {**labs.controller_record(), "boot": "another", "kept": True, "holder": os.getpid(), "holder_start": 1}
    record["lab"] = {"hosts": [{"name": "n1"}]}
    (lab / "lab.json").write_text(json.dumps(record))
    assert [found.state for found in list_labs(tmp_path / "store") if found.directory == lab] == ["orphaned"]
    sweep(tmp_path / "store")
    assert not lab.exists()
