"""The system calls that Linux namespaces and mounts take and that the standard library of Python 3.11 lacks.

Thin: one function per call, each raises OSError with what was attempted in it. See namespaces(7), mount(2),
pivot_root(2), mount_setattr(2), capabilities(7).
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache
from typing import Final

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 0x1
MS_NOSUID: Final = 0x2
MS_NODEV: Final = 0x4
MS_NOEXEC: Final = 0x8
MS_REMOUNT: Final = 0x20
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000

_MNT_DETACH: Final = 2
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000
_MOUNT_ATTR_RDONLY: Final = 0x1
_SYS_MOUNT_SETATTR: Final = 442  # the same on every architecture: it is younger than their unification
_SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "loongarch64": 41, "ppc64le": 203, "s390x": 217}
_PR_CAPBSET_DROP: Final = 24


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, attempt: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{attempt}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the caller (its children, for process ids) into new namespaces of the kinds in `flags`."""
    _check(_libc().unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "none", flags: int = 0, data: str = "") -> None:
    """Mount a file system, or bind one with MS_BIND."""
    encoded = data.encode() if data else None
    result = _libc().mount(os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), encoded)
    _check(result, f"mount {kind} {source} on {target}")


def unmount(target: str) -> None:
    """Take a mount out of the tree at once; it goes away when its last user does."""
    _check(_libc().umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def make_read_only(target: str) -> None:
    """Make the mount at `target`, and all mounts below it, read-only.

    Kernels before 5.12 lack mount_setattr; there only the mount itself becomes read-only, with the flags that it
    has, because an unprivileged remount must not clear flags.
    """
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    path = os.fsencode(target)
    if _libc().syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, attributes, len(attributes)) == 0:
        return
    flags = os.statvfs(target).f_flag
    kept = flags & (MS_NOSUID | MS_NODEV | MS_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME | os.ST_RELATIME)
    # ST_RELATIME of statvfs and MS_RELATIME of mount differ.
    if kept & os.ST_RELATIME:
        kept = (kept & ~os.ST_RELATIME) | (1 << 21)
    mount("none", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


def enter_root(directory: str) -> None:
    """Make `directory`, which must be a mount point, the root of this mount namespace, and drop the old root.

    Where the caller's own root is not a mount point (it was entered with chroot), chroot again is all there is.
    """
    os.chdir(directory)
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is not None and _libc().syscall(number, b".", b".") == 0:
        unmount(".")  # the old root lies over the new one now: pivot_root(2), "pivot_root(".", ".")"
    else:
        os.chroot(".")
    os.chdir("/")


def drop_capability(number: int) -> None:
    """Remove a capability from what this process and its descendants can ever have."""
    _check(_libc().prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), f"drop capability {number}")
