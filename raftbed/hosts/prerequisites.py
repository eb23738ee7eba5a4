"""What local hosts need of this machine, and the sentences that say what is missing and how to get it."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from raftbed.errors import HostError
from raftbed.hosts.host_tree import SEARCH_PATH

Mode = Literal["root", "multi", "single"]
"""root: the machine's root. multi: an ordinary user with a range of subordinate ids. single: with one id only."""

_PACKAGE_OF: Final = {"ip": "iproute2", "unshare": "util-linux"}


def find_program(name: str) -> str:
    """Path of a program, also where an ordinary user's PATH leaves out the sbin directories; "" when missing."""
    return shutil.which(name) or shutil.which(name, path=SEARCH_PATH) or ""


def require_programs() -> None:
    """Check for the programs without which no local host can be made.

    Raises:
        HostError: one is missing; the remedy installs it.
    """
    missing = [name for name in _PACKAGE_OF if not find_program(name)]
    if missing:
        packages = " ".join(sorted({_PACKAGE_OF[name] for name in missing}))
        raise HostError(
            f"local hosts need {' and '.join(missing)}, which this machine lacks.",
            remedy=f"Install it: apt-get install {packages}",
        )


def possible_modes() -> tuple[Mode, ...]:
    """The modes worth trying for this user, best first."""
    if os.geteuid() == 0:
        return ("root",)
    if find_program("newuidmap") and find_program("newgidmap") and _has_subordinate_ids() and find_program("sshd"):
        return ("multi", "single")
    return ("single",)


def _has_subordinate_ids() -> bool:
    names = {str(os.getuid())}
    with contextlib.suppress(OSError, KeyError):
        names.add(getpass.getuser())
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = Path(path).read_text(errors="replace").splitlines()
        except OSError:
            return False
        if not any(line.split(":")[0] in names for line in lines):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why namespaces cannot be made here.

    Attributes:
        reason: a sentence.
        remedy: a sentence with the command to run.
    """

    reason: str
    remedy: str


def namespace_obstacle(proc: Path = Path("/proc")) -> Obstacle | None:
    """The known reason for which this user cannot make namespaces here, or None when none is known.

    Parameters:
        proc: where proc(5) is mounted.
    """
    if os.geteuid() == 0:
        return _obstacle_for_root(proc)
    if _setting(proc, "user/max_user_namespaces") == "0":
        return Obstacle(
            "user namespaces are switched off on this machine (user.max_user_namespaces is 0).",
            "Allow them: sudo sysctl -w user.max_user_namespaces=15000, or run raftbed as root.",
        )
    if _setting(proc, "kernel/unprivileged_userns_clone") == "0":
        return Obstacle(
            "user namespaces are closed to ordinary users (kernel.unprivileged_userns_clone is 0).",
            "Allow them: sudo sysctl -w kernel.unprivileged_userns_clone=1, or run raftbed as root.",
        )
    if _setting(proc, "kernel/apparmor_restrict_unprivileged_userns") == "1":
        return Obstacle(
            "AppArmor keeps ordinary users from using user namespaces "
            "(kernel.apparmor_restrict_unprivileged_userns is 1, as Ubuntu 24.04 has it).",
            "Allow them: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run raftbed as root.",
        )
    if not (proc / "self/ns/user").exists():
        return Obstacle("this kernel has no user namespaces.", "Run raftbed as root.")
    if in_chroot(proc):
        return Obstacle(
            "this is a chroot, in which the kernel forbids user namespaces.",
            "Enter the tree with pivot_root (systemd-nspawn, bwrap or unshare --root do) or run raftbed as root.",
        )
    return None


def _obstacle_for_root(proc: Path) -> Obstacle | None:
    if not _may_administer(proc):
        return Obstacle(
            "this root lacks the capability SYS_ADMIN (a container without privileges?), without which no network "
            "namespace can be made.",
            "Run raftbed on the machine itself, or give the container --privileged.",
        )
    return None


def _may_administer(proc: Path) -> bool:
    try:
        status = (proc / "self/status").read_text()
    except OSError:
        return True
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> 21 & 1)
    return True


def _setting(proc: Path, name: str) -> str:
    try:
        return (proc / "sys" / name).read_text().strip()
    except OSError:
        return ""


def in_chroot(proc: Path = Path("/proc")) -> bool:
    """Whether the root directory is not the root of a mount, as after chroot(2)."""
    try:
        mounts = (proc / "self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    return bool(mounts) and not any(line.split()[4] == "/" for line in mounts)


def refusal(said: str) -> HostError:
    """The error for a lab that did not come up, from what `unshare` or the lab said."""
    obstacle = namespace_obstacle()
    if obstacle is not None:
        return HostError(f"local hosts cannot be made: {obstacle.reason}", remedy=obstacle.remedy)
    said = said.strip().rstrip(".")[-1000:] or "it said nothing"
    if "Operation not permitted" in said and os.geteuid() != 0:
        return HostError(
            f"local hosts cannot be made: the kernel refuses user namespaces here ({said}).",
            remedy="A chroot or a container's seccomp filter does that. Run raftbed on the machine itself or as root.",
        )
    return HostError(f"local hosts cannot be made: {said}.", remedy="`raftbed doctor` tells what this machine lacks.")
