"""A Docker engine for tests: one of their own in private namespaces, and an image made of this machine's packages.

The engine runs in network, mount and process namespaces of its own, so that its bridges and iptables rules stay there;
its files lie below one scratch directory. Nothing is downloaded: the image is this machine's own Debian packages
(python3, openssh-server and what they depend on), packed with tar and imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import pytest
from tests_machine import ThisMachine

from raftbed.deploy import deploy
from raftbed.errors import DeployError
from raftbed.hosts import make_pool
from raftbed.hosts.base import HostPool
from raftbed.hosts.prerequisites import find_program

PACKAGES = (
    *(
        "bash",
        "coreutils",
        "dash",
        "findutils",
        "grep",
        "gzip",
        "hostname",
        "mawk",
        "procps",
        "sed",
        "tar",
        "util-linux",
    ),
    *("openssh-server", "python3", "iproute2", "nftables", "iptables", "iputils-ping"),
)
IMAGE = "raftbed-test-host"
_LEFT_OUT = ("/usr/share/doc/", "/usr/share/man/", "/usr/share/locale/", "/usr/share/info/", "/usr/share/perl")

_START = """set -e
# Nothing of this may be seen outside; what Docker keeps in /run and /etc/docker ends with these namespaces.
mount -t tmpfs tmpfs /run
[ ! -d /etc/docker ] || mount -t tmpfs tmpfs /etc/docker
ip link set lo up
exec dockerd --data-root "$1/data" --exec-root /run/docker --pidfile /run/docker.pid --host "unix://$1/socket" \
    --cgroup-parent "$2" --bip 172.31.255.1/24
"""


def why_no_engine() -> str:
    """Why tests can have no engine of their own here; "" when they can."""
    if os.geteuid() != 0:
        return "an engine of their own needs root"
    for program, package in (("dockerd", "docker.io"), ("docker", "docker.io"), ("containerd", "docker.io")):
        if not find_program(program):
            return f"needs {program} (apt-get install {package})"
    if not find_program("dpkg-query"):
        return "the image is made of Debian packages, and this machine has none"
    missing = [name for name in PACKAGES if name not in _installed()[0]]
    return f"the image needs packages of this machine (apt-get install {' '.join(missing)})" if missing else ""


@contextlib.contextmanager
def private_engine() -> Iterator[dict[str, str]]:
    """An engine with an image for hosts; the environment variables that lead to both.

    While it lasts, the calling thread and what it starts are in the engine's network namespace: the addresses of
    containers are reached from there only.
    """
    scratch = Path(tempfile.mkdtemp(prefix="raftbed-docker-"))
    group = f"/{scratch.name}"
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += ["/bin/sh", "-c", _START, "engine", str(scratch), group]
    with open(scratch / "log", "wb") as log:
        holder = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    environment = {"DOCKER_HOST": f"unix://{scratch}/socket", "RAFTBED_DOCKER_IMAGE": IMAGE}
    before = os.environ.copy()
    try:
        os.environ.update(environment)
        daemon = _wait_until_it_answers(holder, scratch / "log")
        _import_image()
        with inside_network_of(daemon):
            yield environment
        _end(daemon)
    finally:
        os.environ.clear()
        os.environ.update(before)
        holder.kill()  # takes everything in its namespaces along
        holder.wait()
        _remove_cgroups(group)
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.asynccontextmanager
async def docker_pool(names: Sequence[str], directory: Path) -> AsyncIterator[HostPool]:
    """Containers in an engine of their own."""
    with patch.dict(os.environ, {"XDG_CACHE_HOME": str(directory / "cache")}):
        await have_wheels(directory / "home")
        with private_engine():
            made = make_pool("docker", names, directory / "lab")
            await made.start()
            try:
                yield made
            finally:
                await made.close()


async def have_wheels(home: Path) -> None:
    """Put what nodes import into the cache, while there is a way to the package index; skip where there is none."""
    machine = ThisMachine(home)
    machine.python = "/usr/bin/python3"  # the image holds this machine's packages
    try:
        await deploy(machine, wheelhouse=True)
    except DeployError as error:
        pytest.skip(f"the package index is not reachable: {error}")


def _wait_until_it_answers(holder: subprocess.Popen[bytes], log: Path) -> int:
    """The pid of the engine, once it answers."""
    deadline = time.monotonic() + 60
    while subprocess.run(["docker", "version"], capture_output=True, check=False).returncode != 0:
        if holder.poll() is not None or time.monotonic() > deadline:
            pytest.skip(f"dockerd does not run here: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.05)
    return int(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text().split()[0])


@contextlib.contextmanager
def inside_network_of(pid: int) -> Iterator[None]:
    """The calling thread, and whatever it starts, in another process's network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(namespace: int) -> None:
        if libc.setns(namespace, 0x40000000) != 0:  # CLONE_NEWNET; os.setns is there from Python 3.12 on
            raise OSError(ctypes.get_errno(), "setns")

    ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    theirs = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(theirs)
        try:
            yield
        finally:
            enter(ours)
    finally:
        os.close(ours)
        os.close(theirs)


def _end(daemon: int) -> None:
    """Let the engine end by itself, so that it takes its control groups away."""
    process = os.pidfd_open(daemon)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        deadline = time.monotonic() + 15
        while Path(f"/proc/{daemon}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        os.close(process)


def _remove_cgroups(group: str) -> None:
    for top in (*Path("/sys/fs/cgroup").glob(f"*{group}"), *Path("/sys/fs/cgroup").glob(group.lstrip("/"))):
        for directory in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                directory.rmdir()
        with contextlib.suppress(OSError):
            top.rmdir()


# -- the image ------------------------------------------------------------------------------------------------------


def _installed() -> tuple[dict[str, str], dict[str, str]]:
    """What each installed package depends on, and which package provides a name."""
    form = "${Package}\t${db:Status-Status}\t${Pre-Depends},${Depends}\t${Provides}\n"
    listed = subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, text=True, check=True).stdout
    needs: dict[str, str] = {}
    provided: dict[str, str] = {}
    for line in listed.splitlines():
        name, state, depends, provides = line.split("\t")
        if state == "installed":
            needs[name] = depends
            for alias in filter(None, (_bare(part) for part in provides.split(","))):
                provided.setdefault(alias, name)
    return needs, provided


def _bare(dependency: str) -> str:
    return re.sub(r"[ :(\[].*", "", dependency.strip())


def _with_dependencies() -> set[str]:
    needs, provided = _installed()
    found: set[str] = set()
    wanted = list(PACKAGES)
    while wanted:
        name = wanted.pop()
        name = name if name in needs else provided.get(name, "")
        if name and name not in found:
            found.add(name)
            for alternatives in needs[name].split(","):
                names = [_bare(part) for part in alternatives.split("|")]
                wanted += [each for each in names if each in needs or each in provided][:1]
    return found


def _files() -> list[str]:
    """The files of the packages, below the directories where they really are (/bin is a link to /usr/bin)."""
    listed = subprocess.run(["dpkg", "-L", *sorted(_with_dependencies())], capture_output=True, text=True, check=True)
    found = set()
    for line in listed.stdout.splitlines():
        path = os.path.join(os.path.realpath(os.path.dirname(line)), os.path.basename(line))
        if line.startswith("/") and line != "/." and os.path.lexists(path) and not path.startswith(_LEFT_OUT):
            found.add(path)
    links = {"/bin", "/sbin", "/lib", "/lib64"}
    for name in ("awk", "iptables", "ip6tables", "iptables-save"):
        path = find_program(name)
        while path and os.path.islink(path):  # /usr/sbin/iptables, /etc/alternatives/iptables
            links.add(path)
            path = os.path.join(os.path.dirname(path), os.readlink(path))
    return sorted(path.lstrip("/") for path in found | links if path != "/")


def _import_image() -> None:
    """Import an image with this machine's packages, and accounts of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        for directory in ("etc", "root", "tmp", "run", "var/lib", "var/log", "proc", "sys", "dev"):
            (tree / directory).mkdir(parents=True, exist_ok=True)
        (tree / "root").chmod(0o700)
        (tree / "etc/passwd").write_text(
            "root:x:0:0:root:/root:/bin/bash\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
            "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        )
        (tree / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        (tree / "etc/shadow").write_text("root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n")
        (tree / "etc/shadow").chmod(0o600)
        listing = Path(scratch, "files")
        listing.write_text("\n".join(path for path in _files() if not os.path.lexists(tree / path)))
        pack = ["tar", "--create", "--file=-", "--no-recursion", "--directory=/", f"--files-from={listing}"]
        pack += ["--recursion", f"--directory={tree}", "--owner=0", "--group=0", "."]
        packing = subprocess.Popen(pack, stdout=subprocess.PIPE)
        try:
            command = ["docker", "import", "-", IMAGE]
            ended = subprocess.run(command, stdin=packing.stdout, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr
        finally:
            assert packing.stdout is not None
            packing.stdout.close()
            packing.wait()
