"""The labs on this machine: which there are, whether they live, and their removal.

Every lab's directory holds ``lab.json``. A link per lab in a private registry directory (``$XDG_RUNTIME_DIR/raftbed``,
else ``/run/raftbed`` for root, else ``/tmp/raftbed-<uid>``) leads to it, so that a later command finds labs of other
stores too; link and registry directory go away with the lab. Processes are known by pid and start time, so a stale
record never names a stranger. Where pids mean nothing, because they are those of another process namespace (of a
container) or machine, a lock on the file ``lock`` tells: the controller and the lab hold it as long as they live.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import select
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from raftbed.errors import HostError

SPECIFICATION: Final = "lab.json"
INVENTORY: Final = "inventory.json"
LOCK: Final = "lock"

LabState = Literal["live", "kept", "orphaned", "foreign"]
"""live: its controller runs. kept: it was asked to outlive its controller. orphaned: leftovers of a dead one. foreign:
controller or lab live in another process namespace, or on another machine, where they cannot be seen from here."""


@dataclass(frozen=True, slots=True)
class LabInfo:
    """A lab on this machine.

    Attributes:
        directory: where its files lie.
        state: see `LabState`.
        hosts: the names of its hosts.
        controller: pid of the controller that made it.
        lab: pid of the process that holds it, 0 when it is gone.
        created: wall-clock seconds since the epoch.
    """

    directory: Path
    state: LabState
    hosts: tuple[str, ...]
    controller: int
    lab: int
    created: float

    @property
    def name(self) -> str:
        """For people: its hosts and where it is."""
        return f"{self.state} hosts {', '.join(self.hosts)} in {self.directory}"


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); 0 when there is none."""
    try:
        record = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    fields = record.rpartition(b")")[2].split()
    # A zombie is not alive, it only has not been waited for.
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def boot_id() -> str:
    """Identifies this boot of the machine: pids of an earlier one mean nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def registry_directories() -> list[Path]:
    """Where links to this user's labs may be, the place for new ones first; none of them need exist."""
    places = []
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    with contextlib.suppress(OSError):
        if runtime and os.stat(runtime).st_uid == os.geteuid():
            places.append(Path(runtime, "raftbed"))
    if os.geteuid() == 0 and os.path.isdir("/run"):
        places.append(Path("/run/raftbed"))
    places.append(Path(f"/tmp/raftbed-{os.geteuid()}"))  # noqa: S108  used only when it is ours and private
    return places


def registries() -> list[Path]:
    """Those of `registry_directories` that exist and are private to this user."""
    found = []
    for place in registry_directories():
        with contextlib.suppress(HostError, FileNotFoundError):
            _check_private(place)
            found.append(place)
    return found


def _link_name(directory: Path) -> str:
    return hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]


def register(directory: Path) -> Path:
    """Add a lab to the registry; the link that stands for it.

    Raises:
        HostError: the registry directory belongs to someone else.
    """
    for _ in range(5):
        # Another lab may take the empty directory away before the link is in it.
        with contextlib.suppress(FileNotFoundError):
            link = open_registry() / _link_name(directory)
            with contextlib.suppress(FileExistsError):
                link.symlink_to(directory)
            return link
    raise HostError(f"the registry {registry_directories()[0]} cannot be written.")


def open_registry() -> Path:
    """The private directory for what outlives a controller, made when it is not there.

    Raises:
        HostError: it belongs to someone else, or cannot be made.
    """
    registry = registry_directories()[0]
    try:
        registry.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise HostError(
            f"the registry {registry} cannot be made: {error.strerror or error}.",
            remedy="Set XDG_RUNTIME_DIR to a private directory, or to nothing.",
        ) from error
    _check_private(registry)
    return registry


def _check_private(registry: Path) -> None:
    status = registry.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise HostError(
            f"the registry {registry} is not a private directory of this user.",
            remedy="Move it away, or set XDG_RUNTIME_DIR to a private directory.",
        )


def unregister(directory: Path) -> None:
    """Take a lab out of the registry, and the registry away when it was the last."""
    for registry in registries():
        remove_link(registry / _link_name(directory))


def remove_link(link: Path) -> None:
    """Remove a link of the registry, and the registry when it was the last."""
    with contextlib.suppress(OSError):
        link.unlink()
    with contextlib.suppress(OSError):
        link.parent.rmdir()


def make_private_directory(directory: Path) -> None:
    """Make the directory for the files of a pool of hosts.

    Raises:
        HostError: it cannot be made, or there is something in it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        if any(directory.iterdir()):
            raise HostError(f"{directory} is not empty; hosts need a directory of their own.")
    except OSError as error:
        raise HostError(f"{directory} cannot be made: {error.strerror or error}.") from error


def write_record(directory: Path, record: dict[str, Any]) -> None:
    """Replace ``lab.json``."""
    beside = directory / f".{SPECIFICATION}.{os.getpid()}"
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as stream:
        json.dump(record, stream)
    beside.replace(directory / SPECIFICATION)


def process_namespace() -> str:
    """Identifies the namespace in which the pids of this process are numbered: those of another mean nothing here."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def take_lock(directory: Path) -> int:
    """Lock a lab's directory; the descriptor that holds the lock, for as long as it or one inherited from it is open.

    Raises:
        HostError: the directory cannot be written.
    """
    try:
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"{directory} cannot be written: {error.strerror or error}.") from error
    with contextlib.suppress(OSError):  # a file system without locks: whoever asks fails, too, and touches nothing
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _is_locked(directory: Path) -> bool:
    try:
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # what cannot be known is not touched
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def controller_record() -> dict[str, Any]:
    """What identifies the calling process as a lab's controller."""
    return {
        "controller": os.getpid(),
        "controller_start": start_time(os.getpid()),
        "boot": boot_id(),
        "processes": process_namespace(),
        "created": time.time(),
        "kept": False,
        "holder": 0,
        "holder_start": 0,
    }


def _read(directory: Path) -> dict[str, Any] | None:
    """What stands in ``lab.json``; None when there is none that this user wrote: it names processes that are killed."""
    try:
        descriptor = os.open(directory / SPECIFICATION, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, encoding="utf-8") as stream:
            if os.fstat(descriptor).st_uid != os.geteuid():
                return None
            record: Any = json.load(stream)
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _lives(record: dict[str, Any], which: str) -> bool:
    pid = int(record.get(which, 0))
    begun = int(record.get(f"{which}_start", 0))
    return pid > 0 and begun > 0 and _is_of_here(record) and start_time(pid) == begun


def _is_of_here(record: dict[str, Any]) -> bool:
    """The pids in a record are those of this process namespace."""
    here = process_namespace()
    return record.get("boot") == boot_id() and record.get("processes", here) == here


def lab_info(directory: Path) -> LabInfo | None:
    """What is known of the lab in a directory; None when there is none of this user, or its record is malformed."""
    record = _read(directory)
    try:
        return None if record is None else _info(directory, record)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _info(directory: Path, record: dict[str, Any]) -> LabInfo:
    holder = _lives(record, "holder")
    state: LabState = "orphaned"
    if record["kept"] and holder:
        state = "kept"
    elif _lives(record, "controller"):
        state = "live"
    elif not _is_of_here(record) and _is_locked(directory):
        state = "foreign"
    names = tuple(str(host["name"]) for host in record["lab"]["hosts"])
    lab = int(record["holder"]) if holder else 0
    return LabInfo(directory, state, names, int(record["controller"]), lab, float(record["created"]))


def _directories(store: Path | None) -> Iterator[Path]:
    for registry in registries():
        with contextlib.suppress(OSError):
            for link in sorted(registry.iterdir()):
                if link.is_symlink():
                    yield link.readlink()
    if store is not None:
        for pattern in (f"*/{SPECIFICATION}", f"*/*/*/{SPECIFICATION}", f"*/*/*/*/{SPECIFICATION}"):
            for path in sorted(store.glob(pattern)):
                yield path.parent.resolve()


def list_labs(store: Path | None = None, *, live: bool = False) -> list[LabInfo]:
    """The labs of this user on this machine that no running controller holds: kept ones and leftovers.

    Parameters:
        store: a store to search as well, for leftovers from before the machine's last boot.
        live: list those of running controllers too, and those of which nothing can be seen from here.
    """
    found = {directory: lab_info(directory) for directory in _directories(store)}
    return [lab for lab in found.values() if lab is not None and (live or lab.state in ("kept", "orphaned"))]


def removal(lab: LabInfo) -> str:
    """The command that removes this lab, and no other that somebody keeps."""
    return (
        f"raftbed cluster down --cluster {shlex.quote(str(lab.directory))}" if lab.state == "kept" else "raftbed clean"
    )


def remove_lab(lab: LabInfo, *, timeout: float = 10.0) -> None:
    """End a lab that no controller holds any more and remove its files.

    Raises:
        HostError: it belongs to a running controller, or to another process namespace, or does not go away.
    """
    current = lab_info(lab.directory)
    if current is None:
        unregister(lab.directory)
        return
    if current.state == "live":
        raise HostError(
            f"the hosts in {lab.directory} belong to a run under way (process {current.controller}).",
            remedy="End that run first.",
        )
    if current.state == "foreign":
        raise HostError(
            f"the hosts in {lab.directory} live in another container or on another machine.",
            remedy="Remove them where they were made.",
        )
    if current.lab:
        _end(current, timeout)
    remove_files(lab.directory)
    unregister(lab.directory)


def _end(lab: LabInfo, timeout: float) -> None:
    try:
        holder = os.pidfd_open(lab.lab)
    except ProcessLookupError:
        return
    try:
        with contextlib.suppress(OSError, HostError), call_lab(lab.directory, timeout) as channel:
            channel.send(json.dumps({"id": 1, "do": "end"}).encode())
            channel.recv(1 << 16)
        if not _ended(holder, timeout):
            signal.pidfd_send_signal(holder, signal.SIGKILL)  # `unshare --kill-child` takes everything along
            if not _ended(holder, timeout):
                raise HostError(f"the process {lab.lab} of the lab in {lab.directory} does not end.")
    finally:
        os.close(holder)


def _ended(process: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def call_lab(directory: Path, timeout: float) -> socket.socket:
    """Connect to the control socket of a lab.

    Raises:
        OSError: nobody answers there.
    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.settimeout(timeout)
    try:
        folder = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        try:
            channel.connect(f"/proc/self/fd/{folder}/control")
        finally:
            os.close(folder)
    except BaseException:
        channel.close()
        raise
    return channel


def remove_files(directory: Path) -> None:
    """Remove a lab's directory, whoever the files in it belong to.

    Raises:
        HostError: something could not be removed.
    """
    for _ in range(3):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        if os.geteuid() != 0:
            # Files of subordinate ids: only the root of a user namespace that maps them may remove them.
            command = ["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", "--", str(directory)]
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(command, capture_output=True, timeout=30, check=False)
    if directory.exists():
        raise HostError(f"{directory} cannot be removed.", remedy="Look whose files it holds and remove it by hand.")


def sweep(store: Path | None = None) -> list[str]:
    """Remove what dead controllers left behind: processes and files. Labs that live or were kept stay.

    Parameters:
        store: a store to search as well, for leftovers from before the machine's last boot.

    Returns:
        the names of the labs that were removed.
    """
    removed: list[str] = []
    for lab in list_labs(store):
        if lab.state == "orphaned":
            with contextlib.suppress(HostError):
                remove_lab(lab)
                removed.append(lab.name)
    for registry in registries():
        with contextlib.suppress(OSError):
            for link in registry.iterdir():
                if link.is_symlink() and lab_info(link.readlink()) is None:
                    link.unlink()
            registry.rmdir()
    return removed
