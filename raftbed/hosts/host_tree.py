"""The file tree of a local host: its disk, what it shares read-only with the machine, and what is fresh at each boot.

Theory of operation. A host's root directory is an ordinary directory, its disk, below the lab's directory on a real
file system; so what the host writes to /etc, /var or /root is there after a reboot, and fsync means what it means on
this machine. Over that disk lie, read-only, /usr, /opt and the controller's interpreter; /tmp, /run, /dev and /proc
are made anew at each boot. No overlay is used, because a user namespace cannot mount one over /.

/etc is the host's own directory. What it does not override are links to the machine's /etc, bound read-only at
/.machine/etc, so that tools find their configuration while passwords, SSH keys and the resolver stay out of sight.

Standard library only: it runs in the lab.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from raftbed.hosts import namespaces as ns

SHELL: Final = "/bin/sh"
SEARCH_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": SEARCH_PATH,
    "HOME": "/root",
    "USER": "root",
    "LOGNAME": "root",
    "SHELL": SHELL,
    "LANG": "C.UTF-8",
}
"""The environment of commands on a host."""

_MACHINE_ETC: Final = "/.machine/etc"
_OWN_DIRECTORIES: Final = ("etc", "etc/ssh", "home", "mnt", "srv", "var/lib", "var/log", "var/cache", "var/spool")
_MOUNT_POINTS: Final = ("dev", "proc", "run", "sys", "tmp", "usr", ".machine/etc")
_NOT_SHARED: Final = frozenset(
    {
        # Accounts and secrets.
        *("passwd", "passwd-", "group", "group-", "shadow", "shadow-", "gshadow", "gshadow-", ".pwd.lock"),
        *("subuid", "subuid-", "subgid", "subgid-", "sudoers", "sudoers.d", "ssh", "krb5.keytab", "wireguard"),
        # What ties the machine to its network, its disks and its schedule.
        *("hostname", "hosts", "resolv.conf", "nsswitch.conf", "NetworkManager", "netplan", "network", "systemd"),
        *("fstab", "crypttab", "machine-id", "environment", "crontab", "cron.d", "docker", "kubernetes"),
    }
)
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_OPTIONAL_DEVICES: Final = ("fuse", "net/tun")
_SHARED_WITH_MACHINE: Final = ("usr", "opt", "nix")
_MERGED: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_MACHINE_WIDE_PROC: Final = (
    # The host's root is the machine's root when the lab runs as root; these reach beyond its namespaces.
    *("acpi", "bus", "fs", "irq", "sysrq-trigger", "sys/kernel", "sys/vm", "sys/fs", "sys/dev", "sys/debug"),
)
_MACHINE_WIDE_CAPABILITIES: Final = (16, 17, 25, 32, 33, 35)
"""SYS_MODULE, SYS_RAWIO, SYS_TIME (a clock set on one host would move the whole machine's), MAC_OVERRIDE, MAC_ADMIN,
WAKE_ALARM."""


@dataclass(frozen=True, slots=True)
class HostSpecification:
    """What the lab must know to boot a host.

    Attributes:
        name: its name and hostname.
        address: its IPv4 address.
        mac: the hardware address of its eth0, the same at every boot, so that no peer's ARP entry goes stale.
        interface: the lab's end of its wire.
        host_key: its private SSH host key in OpenSSH's format.
    """

    name: str
    address: str
    mac: str
    interface: str
    host_key: str


@dataclass(frozen=True, slots=True)
class LabSpecification:
    """What the lab must know to start; written by the controller to ``lab.json`` in the lab's directory.

    Attributes:
        directory: the lab's directory; hosts' disks lie in ``hosts/<name>/disk`` below it.
        hosts: the hosts, in order.
        gateway: the lab's own address on the bridge.
        prefix: length of the network prefix.
        authorized_key: the public key that hosts let in.
        server: path of sshd, or "" for the embedded server.
        visible: directories that hosts see read-only at the same paths.
        machine_root: whether the lab's root is the machine's root.
        all_ids: whether more than one user id exists in the lab.
    """

    directory: str
    hosts: tuple[HostSpecification, ...]
    gateway: str
    prefix: int
    authorized_key: str
    server: str
    visible: tuple[str, ...]
    machine_root: bool
    all_ids: bool
    environment: Mapping[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))

    def host_directory(self, name: str) -> Path:
        """Where the disk and the log of a host's SSH server lie."""
        return Path(self.directory, "hosts", name)


def make_disk(lab: LabSpecification, host: HostSpecification) -> None:
    """Lay out the disk of a new host; called before its first boot only."""
    disk = lab.host_directory(host.name) / "disk"
    disk.mkdir(mode=0o755, parents=True)
    for name in _OWN_DIRECTORIES + _MOUNT_POINTS:
        (disk / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    (disk / "root").mkdir(mode=0o700)
    (disk / "var/tmp").mkdir()
    (disk / "var/tmp").chmod(0o1777)
    (disk / "var/run").symlink_to("/run")
    for name in ("lastlog", "wtmp", "btmp"):
        (disk / "var/log" / name).touch(0o600)  # sshd says on the terminal when it finds none
    for name in _MERGED:
        machine = Path("/", name)
        if machine.is_symlink():
            (disk / name).symlink_to(machine.readlink())
    _link_etc(disk / "etc")
    for name, content in _own_etc(lab, host).items():
        path = disk / "etc" / name
        path.write_text(content)
        private = name in {"shadow", "gshadow"} or name.endswith("_key")
        path.chmod(0o600 if private else 0o644)


def _link_etc(etc: Path) -> None:
    for entry in os.scandir("/etc"):
        if entry.name in _NOT_SHARED:
            continue
        # A link is copied, because a relative one (os-release -> ../usr/lib/os-release) means its own place.
        target = os.readlink(entry.path) if entry.is_symlink() else f"{_MACHINE_ETC}/{entry.name}"
        os.symlink(target, etc / entry.name)


def _system_accounts(path: str) -> list[list[str]]:
    """The machine's accounts or groups without those of people."""
    lines = Path(path).read_text(errors="replace").splitlines()
    entries = [line.split(":") for line in lines if line.count(":") >= 3]
    return [entry for entry in entries if entry[2].isdigit() and (int(entry[2]) < 1000 or int(entry[2]) == 65534)]


def _own_etc(lab: LabSpecification, host: HostSpecification) -> dict[str, str]:
    accounts = [entry for entry in _system_accounts("/etc/passwd") if entry[0] != "root" and len(entry) == 7]
    groups = [entry for entry in _system_accounts("/etc/group") if entry[0] != "root"]
    passwd = [f"root:x:0:0:root:/root:{SHELL}"] + [":".join([name, "x", *rest]) for name, _, *rest in accounts]
    # "*" and not "!": sshd takes the latter for a locked account and refuses keys too.
    shadow = ["root:*:19000:0:99999:7:::"] + [f"{entry[0]}:*:19000:0:99999:7:::" for entry in accounts]
    group = ["root:x:0:"] + [f"{entry[0]}:x:{entry[2]}:" for entry in groups]
    gshadow = ["root:*::"] + [f"{entry[0]}:*::" for entry in groups]
    hosts = ["127.0.0.1 localhost"] + [f"{other.address} {other.name}" for other in lab.hosts]
    return {
        "passwd": _lines(passwd),
        "shadow": _lines(shadow),
        "group": _lines(group),
        "gshadow": _lines(gshadow),
        "hostname": f"{host.name}\n",
        "hosts": _lines(hosts),
        "resolv.conf": "",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files\n",
        "fstab": "",
        "ssh/ssh_host_ed25519_key": host.host_key,
        "ssh/authorized_keys": lab.authorized_key.strip() + "\n",
        "ssh/sshd_config": _sshd_config(lab),
    }


def _sshd_config(lab: LabSpecification) -> str:
    environment = " ".join(f"{name}={value}" for name, value in lab.environment.items() if name in {"PATH", "LANG"})
    return _lines(
        [
            "Port 22",
            "AddressFamily inet",
            "HostKey /etc/ssh/ssh_host_ed25519_key",
            "AuthorizedKeysFile /etc/ssh/authorized_keys",
            "AuthenticationMethods publickey",
            "PermitRootLogin prohibit-password",
            "UsePAM no",
            "UseDNS no",
            "PidFile none",
            "PrintMotd no",
            "MaxStartups 200",
            "MaxSessions 500",
            f"SetEnv {environment}",
            "Subsystem sftp internal-sftp",
        ]
    )


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def mount_tree(lab: LabSpecification, host: HostSpecification) -> None:
    """Assemble the tree of a host and make it the root. The caller is in the host's own namespaces already."""
    root = str(lab.host_directory(host.name) / "disk")
    ns.mount("none", "/", flags=ns.MS_REC | ns.MS_PRIVATE)
    ns.mount(root, root, flags=ns.MS_BIND | ns.MS_REC)
    ns.mount("proc", f"{root}/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    try:
        ns.mount("sysfs", f"{root}/sys", "sysfs", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC | ns.MS_RDONLY)
    except OSError:
        bind_read_only("/sys", f"{root}/sys")
    for name, mode in (("tmp", "1777"), ("run", "755")):
        ns.mount("tmpfs", f"{root}/{name}", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, f"mode={mode}")
    for name in ("sshd", "lock"):
        os.mkdir(f"{root}/run/{name}", 0o755)
    _make_devices(f"{root}/dev", all_ids=lab.all_ids)
    shared = [f"/{name}" for name in _SHARED_WITH_MACHINE if os.path.isdir(f"/{name}")]
    shared += [f"/{name}" for name in _MERGED if os.path.isdir(f"/{name}") and not os.path.islink(f"/{name}")]
    bind_read_only("/etc", root + _MACHINE_ETC)
    # After /tmp and /run, below which the interpreter may live.
    for path in [*shared, *lab.visible]:
        bind_read_only(path, root + path)
    if lab.machine_root:
        for name in _MACHINE_WIDE_PROC:
            if os.path.exists(f"{root}/proc/{name}"):
                bind_read_only(f"{root}/proc/{name}", f"{root}/proc/{name}")
        for capability in _MACHINE_WIDE_CAPABILITIES:
            ns.drop_capability(capability)
    ns.enter_root(root)


def bind_read_only(source: str, target: str) -> None:
    """Show a file or directory of the machine at another place, read-only, with all that is mounted below it."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    ns.mount(source, target, flags=ns.MS_BIND | ns.MS_REC)
    ns.make_read_only(target)


def _make_devices(dev: str, *, all_ids: bool) -> None:
    ns.mount("tmpfs", dev, "tmpfs", ns.MS_NOSUID | ns.MS_NOEXEC, "mode=755")
    for name in (*_DEVICES, *_OPTIONAL_DEVICES):
        source = f"/dev/{name}"
        if not os.path.exists(source) or not stat.S_ISCHR(os.stat(source).st_mode):
            continue
        os.makedirs(os.path.dirname(f"{dev}/{name}"), exist_ok=True)
        os.close(os.open(f"{dev}/{name}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        ns.mount(source, f"{dev}/{name}", flags=ns.MS_BIND)
    for name in ("pts", "shm"):
        os.mkdir(f"{dev}/{name}", 0o755)
    group = ",gid=5" if all_ids else ""
    ns.mount(
        "devpts", f"{dev}/pts", "devpts", ns.MS_NOSUID | ns.MS_NOEXEC, f"newinstance,ptmxmode=0666,mode=0620{group}"
    )
    ns.mount("tmpfs", f"{dev}/shm", "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=1777")
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, link in links.items():
        os.symlink(link, f"{dev}/{name}")
