"""What works on this machine: for each kind of host and each mechanism of a fault, really tried, with the remedy."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final, Literal

from raftbed import faults
from raftbed.errors import HostError
from raftbed.faults.toolbox import MECHANISMS
from raftbed.hosts import docker, docker_runs, labs
from raftbed.hosts.engine import find_engine
from raftbed.hosts.host_tree import SEARCH_PATH
from raftbed.hosts.prerequisites import find_program, namespace_obstacle, possible_modes, require_programs

State = Literal["ok", "missing", "warning"]

ROOT_HOSTS: Final = "local hosts, as root"
USER_HOSTS: Final = "local hosts, as an ordinary user"
LATER_FAULTS: Final = "faults that this version does not have yet"
_TIMEOUT: Final = 10.0
_NOBODY: Final = 65534

_LAB_TRIAL: Final = """set -e
ip link set lo up
ip link add br0 type bridge
ip link add v1 type veth peer name eth0
ip link set v1 master br0 up
mount -t tmpfs tmpfs /tmp
"""

_FAULT_TRIAL: Final = """
# Each trial prints "NAME ok", or "NAME failed WHY" with the last line of what the tool said.
try() {
    name=$1; shift
    if said=$("$@" 2>&1); then echo "$name ok"; else echo "$name failed $(echo "$said" | tail -n 1)"; fi
}
ip link set lo up
ip link add eth0 type veth peer name v1
ip link set eth0 up
nft_drop() {
    nft -f - <<'RULES'
table inet raftbed { set cut { type ipv4_addr; }
  chain in { type filter hook input priority -300; policy accept; ip saddr @cut counter drop; }; }
RULES
}
nft_loss() {
    nft -f - <<'RULES'
table inet raftbed_loss { chain in { type filter hook input priority -300; numgen random mod 1000 < 10 drop; }; }
RULES
}
try nft nft_drop
try nft-loss nft_loss
try iptables iptables -w -A INPUT -s 10.9.9.9 -j DROP
try netlink "$1" -I -S "$2" probe
try route ip route add blackhole 10.9.9.9/32
try netem tc qdisc add dev eth0 root netem delay 1ms
try nfqueue iptables -w -t mangle -A OUTPUT -d 10.9.9.9 -j NFQUEUE --queue-num 0 --queue-bypass
try tbf tc qdisc add dev lo root tbf rate 1mbit burst 10kb latency 50ms
"""

_FAULTS: Final[Mapping[str, tuple[str, str, bool]]] = {
    # name in the trial: what it is for, how to get it, whether a run can do without it.
    "nft": ("partitions", "apt-get install nftables", True),
    "iptables": ("partitions where nft is missing", "apt-get install iptables", True),
    "netlink": ("partitions where neither is installed", "apt-get install nftables", True),
    "route": ("partitions where the kernel has no packet filter", "apt-get install iproute2", False),
    "nft-loss": ("packet loss", "apt-get install nftables", True),
    "netem": ("delay, reordering, loss, duplication", "sudo modprobe sch_netem (a kernel that has it)", True),
    "nfqueue": (
        "delay and loss where netem is missing",
        "apt-get install iptables; sudo modprobe nfnetlink_queue",
        True,
    ),
    "tbf": ("bandwidth", "apt-get install iproute2; sudo modprobe sch_tbf", True),
}

_TOOLS: Final = {
    "nft": "nft",
    "nft-loss": "nft",
    "iptables": "iptables",
    "nfqueue": "iptables",
    "route": "ip",
    "netem": "tc",
    "tbf": "tc",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one thing that raftbed may need.

    Attributes:
        kind: what it belongs to: a kind of host, "faults", "leftovers".
        name: the thing.
        state: "ok"; "missing" (what `kind` stands for does not work without it); "warning" (it works with less).
        detail: what was found, in a few words.
        remedy: the command that installs or allows it; "" when nothing has to be done.
    """

    kind: str
    name: str
    state: State
    detail: str
    remedy: str = ""


def diagnose(store: Path | None = None) -> list[Finding]:
    """Try what this machine can do; takes about a second and leaves nothing behind.

    Parameters:
        store: a store to search for leftovers, beside the registry of labs.
    """
    steps: Sequence[Callable[[], Iterable[Finding]]] = (_local_hosts, _other_hosts, _faults, lambda: _leftovers(store))
    return [finding for step in steps for finding in step()]


def is_usable(findings: Iterable[Finding]) -> bool:
    """Whether local hosts can be made by this user."""
    kind = ROOT_HOSTS if os.geteuid() == 0 else USER_HOSTS
    return not any(finding.kind == kind and finding.state == "missing" for finding in findings)


def render(findings: Iterable[Finding]) -> str:
    """The findings as text, grouped by kind, with the remedy below whatever is not in order."""
    signs = {"ok": "ok     ", "missing": "MISSING", "warning": "warning"}
    lines: list[str] = []
    for kind, group in groupby(findings, key=lambda finding: finding.kind):
        lines += ["", kind] if lines else [kind]
        for finding in group:
            lines.append(f"  {signs[finding.state]}  {finding.name}: {finding.detail}")
            if finding.remedy:
                lines.append(f"           -> {finding.remedy}")
    return "\n".join(lines) + "\n"


def _run(command: Sequence[str], *, stdin: str = "") -> tuple[int, str]:
    """Exit status and last line of what a command said; 127 when it is not installed."""
    # The system's own first: an ordinary user's PATH lacks sbin, and may lead into closed directories.
    environment = {**os.environ, "PATH": f"{SEARCH_PATH}:{os.environ.get('PATH', '')}", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=_TIMEOUT, env=environment, check=False
        )
    except FileNotFoundError:
        return 127, f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{command[0]} did not end within {_TIMEOUT:.0f} s"
    return done.returncode, done.stdout + done.stderr


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


def _namespaces(*, user: bool) -> list[str]:
    return [
        "unshare",
        *(["--user", "--map-root-user"] if user else []),
        *("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("/bin/sh", "-s"),
    ]


# -- hosts ----------------------------------------------------------------------------------------------------------


def _local_hosts() -> Iterable[Finding]:
    is_root = os.geteuid() == 0
    kind = ROOT_HOSTS if is_root else USER_HOSTS
    try:
        require_programs()
    except HostError as error:
        yield Finding(kind, "programs", "missing", error.message, error.remedy)
        return
    yield Finding(kind, "programs", "ok", "ip and unshare are installed")
    yield _trial(kind, user=not is_root)
    yield _ssh_server(kind)
    if is_root:
        yield _trial_as_nobody()
        return
    yield _subordinate_ids(kind)
    yield Finding(ROOT_HOSTS, "namespaces", "warning", "not tried: this is an ordinary user", "")


def _trial(kind: str, *, user: bool) -> Finding:
    status, said = _run(_namespaces(user=user), stdin=_LAB_TRIAL)
    if status == 0:
        return Finding(kind, "namespaces", "ok", "a bridge and a wire in namespaces of their own could be made")
    obstacle = namespace_obstacle()
    if obstacle is not None:
        return Finding(kind, "namespaces", "missing", obstacle.reason, obstacle.remedy)
    return Finding(
        kind,
        "namespaces",
        "missing",
        _last_line(said),
        "Bridges and veth need kernel modules: sudo modprobe bridge veth" if "Operation not supported" in said else "",
    )


def _trial_as_nobody() -> Finding:
    """As root, find out whether an ordinary user could make local hosts too."""
    ids = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    status, said = _run(["setpriv", *ids, *_namespaces(user=True)], stdin=_LAB_TRIAL)
    if status == 0:
        return Finding(USER_HOSTS, "namespaces", "ok", "tried as nobody: user namespaces are allowed")
    for name, refusing, command in (
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
    ):
        with contextlib.suppress(OSError):
            if Path("/proc/sys", name).read_text().strip() == refusing:
                what = f"user namespaces are not allowed ({name.replace('/', '.')} is {refusing})"
                return Finding(USER_HOSTS, "namespaces", "warning", what, f"sudo sysctl -w {command}")
    return Finding(USER_HOSTS, "namespaces", "warning", f"tried as nobody: {_last_line(said)}")


def _ssh_server(kind: str) -> Finding:
    if find_program("sshd"):
        return Finding(kind, "SSH server", "ok", "OpenSSH is installed")
    return Finding(
        kind,
        "SSH server",
        "ok",
        "OpenSSH is not installed; hosts run the embedded server, which does as well",
    )


def _subordinate_ids(kind: str) -> Finding:
    if "multi" in possible_modes():
        return Finding(kind, "user ids", "ok", "a range of subordinate ids: hosts have all users and run OpenSSH")
    return Finding(
        kind,
        "user ids",
        "ok",
        "one id only (hosts have no user but root); for more: apt-get install uidmap openssh-server, "
        "and a range in /etc/subuid and /etc/subgid",
    )


def _other_hosts() -> Iterable[Finding]:
    yield from _docker()
    yield from _vagrant()


def _docker() -> Iterable[Finding]:
    try:
        engine = asyncio.run(find_engine())
    except HostError as error:
        yield Finding("docker", "engine", "warning", error.message, error.remedy)
        return
    yield Finding("docker", "engine", "ok", f"{engine.kind} {engine.version} answers")
    image = os.environ.get(docker.IMAGE_CHOICE, docker.IMAGE)
    try:
        there = asyncio.run(engine.inspect("image", image))
    except HostError as error:
        yield Finding("docker", "image", "warning", error.message)
        return
    if there:
        yield Finding("docker", "image", "ok", image)
    else:
        remedy = f"{engine.kind} build --tag {docker.IMAGE} docker/; without a registry: docker/make-image"
        yield Finding("docker", "image", "warning", f"{image} is not there yet; the first run builds it", remedy)


def _vagrant() -> Iterable[Finding]:
    if not find_program("vagrant"):
        remedy = "apt-get install vagrant vagrant-libvirt libvirt-daemon-system qemu-system-x86"
        yield Finding("vagrant", "vagrant", "warning", "not installed; needed for virtual machines only", remedy)
        return
    yield Finding("vagrant", "vagrant", "ok", find_program("vagrant"))
    for provider, program in (("libvirt", "libvirtd"), ("VirtualBox", "VBoxManage")):
        if find_program(program):
            yield Finding("vagrant", "provider", "ok", f"{provider} is installed")
            break
    else:
        yield Finding(
            "vagrant",
            "provider",
            "warning",
            "neither libvirt nor VirtualBox is installed",
            "apt-get install vagrant-libvirt libvirt-daemon-system qemu-system-x86",
        )
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        yield Finding(
            "vagrant",
            "/dev/kvm",
            "warning",
            "not open to this user: machines are emulated, some ten times slower",
            "Join its group (sudo usermod -aG kvm $USER), or switch virtualization on in the firmware",
        )


# -- faults ---------------------------------------------------------------------------------------------------------


def _faults() -> Iterable[Finding]:
    yield Finding("faults", "kill", "ok", "processes are killed and started again: nothing is needed")
    yield from _network_faults()
    yield _fuse()
    yield _cgroups()
    yield _libfaketime()


def _network_faults() -> Iterable[Finding]:
    probe = [sys.executable, str(Path(faults.__file__).with_name("cut_netlink.py"))]
    status, said = _run([*_namespaces(user=os.geteuid() != 0), *probe], stdin=_FAULT_TRIAL)
    outcomes: dict[str, list[str]] = {}
    for line in said.splitlines():
        words = line.split(" ", 2)
        if len(words) >= 2 and words[0] in _FAULTS:
            outcomes[words[0]] = words[1:]
    if not outcomes:
        yield Finding("faults", "network", "missing", f"could not be tried: {_last_line(said)} (status {status})")
        return
    for name, (purpose, remedy, replaceable) in _FAULTS.items():
        outcome = outcomes.get(name, ["failed", "not tried"])
        if outcome[0] == "ok":
            yield Finding(_kind_of(name), name, "ok", purpose)
            continue
        tool = _TOOLS.get(name)
        why = outcome[1] if len(outcome) > 1 else "it failed"
        why = why if tool is None or find_program(tool) else f"{tool} is not installed"
        yield Finding(_kind_of(name), name, "warning" if replaceable else "missing", f"{purpose}: {why}", remedy)


def _kind_of(name: str) -> str:
    return "faults" if name in MECHANISMS else LATER_FAULTS


def _fuse() -> Finding:
    purpose = "lost un-synced writes, failing disks"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return Finding(
            LATER_FAULTS, "/dev/fuse", "warning", f"{purpose}: not open to this user", "sudo chmod 666 /dev/fuse"
        )
    except OSError as error:
        return Finding(LATER_FAULTS, "/dev/fuse", "warning", f"{purpose}: {error.strerror}", "sudo modprobe fuse")
    return Finding(LATER_FAULTS, "/dev/fuse", "ok", purpose)


def _cgroups() -> Finding:
    purpose = "CPU and memory limits, freezing"
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return Finding(LATER_FAULTS, "cgroups", "ok", f"{purpose}: version 2")
    if os.path.isdir("/sys/fs/cgroup/freezer") or os.path.isdir("/sys/fs/cgroup/cpu"):
        return Finding(LATER_FAULTS, "cgroups", "ok", f"{purpose}: version 1")
    return Finding(
        LATER_FAULTS, "cgroups", "warning", f"{purpose}: not mounted", "mount -t cgroup2 none /sys/fs/cgroup"
    )


def _libfaketime() -> Finding:
    purpose = "clock jumps and skew of one node"
    if importlib.util.find_spec("libfaketime") is not None or glob.glob("/usr/lib/*/faketime/libfaketime.so.1"):
        return Finding(LATER_FAULTS, "libfaketime", "ok", purpose)
    return Finding(LATER_FAULTS, "libfaketime", "warning", f"{purpose}: not installed", "pip install libfaketime")


# -- leftovers ------------------------------------------------------------------------------------------------------


def _leftovers(store: Path | None) -> Iterable[Finding]:
    found = labs.list_labs(store)
    for lab in found:
        yield Finding("leftovers", lab.state, "warning", lab.name, "raftbed clean")
    runs = docker_runs.leftovers()
    for run in runs:
        remedy = "raftbed clean"
        if run.state == "foreign":  # its controller may be at work, where it cannot be seen
            remedy = f"{run.engine.kind} rm --force {' '.join(run.hosts)}, once you know that nobody uses them"
        yield Finding("leftovers", run.state, "warning", run.name, remedy)
    if not found and not runs:
        yield Finding("leftovers", "hosts", "ok", "none")
    usage = shutil.disk_usage(store if store is not None and store.exists() else Path.cwd())
    if usage.free < 1 << 30:
        yield Finding("leftovers", "disk", "warning", f"only {usage.free >> 20} MiB are free here", "Free some space.")
