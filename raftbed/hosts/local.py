"""Local hosts: machines made of Linux namespaces on the controller's own machine, reached over real SSH.

`LocalPool` is the controller's side; the lab that holds the hosts is `raftbed.hosts.lab`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from raftbed.errors import CommandError, HostError, UsageError
from raftbed.hosts import labs
from raftbed.hosts.base import SocketFactory
from raftbed.hosts.host_tree import HostSpecification, LabSpecification
from raftbed.hosts.interpreter import interpreter_directories
from raftbed.hosts.inventory import Inventory, InventoryEntry
from raftbed.hosts.lab_client import LAB_TIMEOUT, LabConnection, SocketOpener, attach
from raftbed.hosts.labs import LabInfo, list_labs, remove_lab, sweep
from raftbed.hosts.parallel import in_parallel
from raftbed.hosts.prerequisites import Mode, find_program, possible_modes, refusal, require_programs
from raftbed.hosts.ssh import CONNECT_TIMEOUT, SSHHost

if TYPE_CHECKING:
    import asyncssh

__all__ = ["LabInfo", "LocalHost", "LocalPool", "attach", "list_labs", "remove_lab", "sweep"]

Server = Literal["openssh", "embedded"]

HOME: Final = "/var/lib/raftbed"
_PREFIX: Final = 16
_GATEWAY: Final = "10.0.255.254"
_MOST_HOSTS: Final = 1000
_LOOK_AGAIN: Final = 1.0
"""Seconds without an answer after which one asks the lab whether the host is up at all."""
_LAB_PATIENCE: Final = 1.0
"""Seconds for that question: a lab that boots another host has no time to answer."""


def _address(position: int) -> str:
    """The address of the host at `position`, counted from 0: 10.0.0.1 and on."""
    return f"10.0.{position // 250}.{position % 250 + 1}"


def _hardware_address(position: int) -> str:
    number = position + 1
    return f"02:52:42:00:{number >> 8:02x}:{number & 0xFF:02x}"


class LocalHost(SSHHost):
    """One local host.

    Parameters:
        entry: how it is reached.
        lab: the lab that holds it.
        log: what its SSH server writes.
    """

    def __init__(self, entry: InventoryEntry, lab: LabConnection, log: Path) -> None:
        super().__init__(entry)
        self._log = log
        self._lab = lab
        self._is_down = False
        self._gone = ""  # how it went down by itself, once that is known

    async def connect(self, *, timeout: float = CONNECT_TIMEOUT, booting: bool = False) -> None:
        """Open the connection; a host that was crashed, or that is known to be lost, says so at once.

        Raises:
            HostError: it is down, or cannot be reached.
        """
        try:
            asks = not booting and not self.is_connected
            if self._why_down() or (asks and await self._is_known_to_be_down()):
                raise HostError(self._why_down(), host=self.name)
            await super().connect(timeout=timeout, booting=booting)
        except HostError as error:
            raise await self.explain(error) from error

    async def explain(self, error: HostError) -> HostError:
        """`error`, or that the host is not up any more, with what its SSH server said last."""
        try:
            if self._why_down() or await self._is_known_to_be_down():
                return HostError(self._why_down(), host=self.name)
        except HostError as gone:
            return HostError(f"cannot be reached: {gone.message}", host=self.name)
        return HostError(error.message.removeprefix(f"{self.name}: ") + _complaints(self._log), host=self.name)

    def _why_down(self) -> str:
        """Why it is down, as far as that is known; "" where it is not."""
        return "is down: it was crashed and not rebooted." if self._is_down else self._gone

    async def _is_known_to_be_down(self) -> bool:
        """The lab says so, and soon; where it is busy, nothing is known.

        Raises:
            HostError: the lab is gone.
        """
        try:
            async with asyncio.timeout(_LAB_PATIENCE):
                return not await self._is_up()
        except TimeoutError:
            return False

    async def _is_up(self) -> bool:
        """Ask the lab; a host that is not up is taken note of.

        Raises:
            HostError: the lab does not answer.
        """
        answer, _ = await self._lab.request("up")
        if self.name in answer["up"]:
            return True
        if not self._is_down:
            self._gone = f"is down: its first process ended by itself.{_complaints(self._log)}"
            self.abandon()
        return False

    @contextlib.asynccontextmanager
    async def _session(
        self, command: str, timeout: float, *, shown: str = ""
    ) -> AsyncIterator[asyncssh.SSHClientProcess[bytes]]:
        """See `SSHHost`. A host that dies under a command is noticed: the lab sees it at once, SSH only after all its
        keep-alives."""
        watch = asyncio.ensure_future(self._watch())
        try:
            async with super()._session(command, timeout, shown=shown) as process:
                yield process
        except CommandError:
            raise
        except HostError as error:
            if self._gone:
                raise HostError(self._gone, host=self.name) from error
            raise
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        # A lab that is gone, or a log that is being removed, says nothing of this host.
        with contextlib.suppress(HostError, OSError, ValueError):
            while not self._is_down and not self._gone:
                await asyncio.sleep(_LOOK_AGAIN)
                if not self._is_down:
                    await self._is_up()

    async def crash(self) -> None:
        """Pull the plug: the wire first, then process 1 and with it everything; the disk stays."""
        self._is_down = True
        try:
            await self._lab.request("crash", hosts=[self.name])
        finally:
            self.abandon()

    async def reboot(self, *, timeout: float = 30.0) -> None:
        """Start it again, with its disk, address and host key; one that is up is reset.

        Raises:
            HostError: it did not come up within `timeout` seconds.
        """
        self.abandon()
        self._is_down = True  # until it has booted
        try:
            async with asyncio.timeout(timeout):
                await self._lab.request("boot", hosts=[self.name])
                self._is_down, self._gone = False, ""
                await self.connect(timeout=timeout, booting=True)
        except TimeoutError as error:
            raise HostError(f"did not boot within {timeout:g} s.", host=self.name) from error


def _complaints(log: Path) -> str:
    """The end of what an SSH server wrote, without what it writes on an ordinary day."""
    usual = ("Server listening on ", "Accepted publickey for ", "Received disconnect from ", "Disconnected from ")
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    said = " ".join(line for line in lines if line.strip() and not line.startswith(usual))[-500:]
    return f" Its SSH server logged: {said}" if said else ""


class LocalPool:
    """Hosts made of namespaces: an outer lab with a bridge, and hosts with addresses 10.0.0.1 and on within it.

    Parameters:
        names: of the hosts, in order; they are hostnames as well.
        directory: a private directory for the lab's files, made here (empty or absent); removed on close.
        mode: "root", "multi" or "single" (see `raftbed.hosts.prerequisites.Mode`); None takes the best that works.
        server: "openssh" or "embedded"; None takes OpenSSH where it is installed and can run.

    Raises:
        UsageError: no names, too many, or one that is no hostname.
    """

    def __init__(
        self,
        names: Sequence[str],
        directory: Path,
        *,
        mode: Mode | None = None,
        server: Server | None = None,
    ) -> None:
        if not 1 <= len(names) <= _MOST_HOSTS or len(set(names)) != len(names):
            raise UsageError(f"local hosts need 1 to {_MOST_HOSTS} different names, not {len(names)}.")
        for name in names:
            if not name.isascii() or not name.replace("-", "").isalnum() or len(name) > 63:
                raise UsageError(f"{name!r} is no name for a host: letters, digits and hyphens only.")
        self._names = tuple(names)
        self._directory = Path(os.path.abspath(directory))
        self._wanted_mode = mode
        self._wanted_server = server
        self.mode: Mode = mode or possible_modes()[0]
        self._lab: LabConnection | None = None
        self._opener: SocketOpener | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = -1  # a descriptor
        self._hosts: dict[str, LocalHost] = {}
        self.inventory = Inventory({})

    @property
    def hosts(self) -> Mapping[str, LocalHost]:
        """By name, once started."""
        return self._hosts

    @property
    def socket_factory(self) -> SocketFactory:
        """Makes sockets that reach the hosts; raises OSError when the lab is not there."""
        return self._open_socket

    @property
    def server(self) -> Server:
        """Which SSH server the hosts run."""
        if self._wanted_server is not None:
            return self._wanted_server
        return "openssh" if self.mode != "single" and find_program("sshd") else "embedded"

    def _open_socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        if self._opener is None:
            raise OSError(errno.ENETDOWN, "the local hosts are not up")
        return self._opener(address_info)

    async def start(self) -> None:
        """Bring all hosts up, in parallel; returns when each answers SSH.

        Raises:
            HostError: with reason and remedy; nothing is left behind then.
        """
        require_programs()
        modes = (self._wanted_mode,) if self._wanted_mode else possible_modes()
        for position, mode in enumerate(modes):
            self.mode = mode
            try:
                await self._start()
                return
            except HostError:
                await asyncio.shield(self.close())
                if position == len(modes) - 1:
                    raise
            except BaseException:
                await asyncio.shield(self.close())
                raise

    async def _start(self) -> None:
        labs.make_private_directory(self._directory)
        self._lock = labs.take_lock(self._directory)
        specification, entries = self._specify()
        record = {**labs.controller_record(), "lab": asdict(specification)}
        labs.write_record(self._directory, record)
        record["registered"] = str(labs.register(self._directory))
        lab = self._launch()
        self._lab = lab
        assert self._process is not None
        record["holder"] = self._process.pid
        record["holder_start"] = labs.start_time(self._process.pid)
        labs.write_record(self._directory, record)
        try:
            await lab.answer()
        except HostError as error:
            said = self._lab_log() if "is gone" in error.message else ""
            raise refusal(said or error.message) from error
        _, descriptors = await lab.request("sockets")
        self._opener = SocketOpener(socket.socket(fileno=descriptors[0]))
        self._hosts = {name: LocalHost(entry, lab, self._log_of(name)) for name, entry in entries.items()}
        await lab.request("boot", hosts=list(self._names))
        await in_parallel(host.connect(timeout=LAB_TIMEOUT, booting=True) for host in self._hosts.values())

    def _log_of(self, name: str) -> Path:
        return self._directory / "hosts" / name / "ssh.log"

    def _specify(self) -> tuple[LabSpecification, dict[str, InventoryEntry]]:
        """Make keys, and say what each host is; also fills the inventory."""
        import asyncssh

        client_key = asyncssh.generate_private_key("ssh-ed25519", comment="raftbed")
        key_path = self._directory / "key"
        fd = os.open(key_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as stream:
            stream.write(client_key.export_private_key())
        hosts: list[HostSpecification] = []
        entries: dict[str, InventoryEntry] = {}
        for position, name in enumerate(self._names):
            host_key = asyncssh.generate_private_key("ssh-ed25519", comment=name)
            address = _address(position)
            private = host_key.export_private_key().decode()
            hosts.append(HostSpecification(name, address, _hardware_address(position), f"v{position + 1}", private))
            entries[name] = InventoryEntry(
                name=name,
                address=address,
                key=key_path,
                host_key=host_key.export_public_key().decode().strip(),
                open_socket=self._open_socket,
                home=HOME,
                python=os.path.abspath(sys.executable),
                shares_interpreter=True,
            )
        self.inventory = Inventory(entries)
        self.inventory.save(self._directory / labs.INVENTORY)
        lab = LabSpecification(
            directory=str(self._directory),
            hosts=tuple(hosts),
            gateway=_GATEWAY,
            prefix=_PREFIX,
            authorized_key=client_key.export_public_key().decode(),
            server=find_program("sshd") if self.server == "openssh" else "",
            visible=interpreter_directories(),
            machine_root=self.mode == "root",
            all_ids=self.mode != "single",
        )
        return lab, entries

    def _launch(self) -> LabConnection:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        controller = os.pidfd_open(os.getpid())
        command = [find_program("unshare")]
        if self.mode != "root":
            command += ["--user", "--map-root-user"]
        if self.mode == "multi":
            command.append("--map-auto")
        command += ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command += [sys.executable, "-P", "-B", "-m", "raftbed.hosts.lab"]
        command += ["--specification", str(self._directory / labs.SPECIFICATION)]
        command += ["--control", str(theirs.fileno()), "--controller", str(controller)]
        log = os.open(self._directory / "lab.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            # A session of its own: Ctrl-C at the terminal is the controller's to handle.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(), controller, self._lock),  # the lab holds the lock, too
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise HostError(f"{command[0]} cannot be started: {error.strerror or error}.") from error
        finally:
            theirs.close()
            os.close(controller)
            os.close(log)
        return LabConnection(ours)

    def _lab_log(self) -> str:
        try:
            return (self._directory / "lab.log").read_text(errors="replace")
        except OSError:
            return ""

    async def close(self, *, keep: bool = False) -> None:
        """Close all sessions and take the hosts away with their files; with `keep`, leave them up.

        Kept hosts are found again by `raftbed.hosts.labs.list_labs`, and removed by `remove_lab`. Idempotent.
        """
        lab, self._lab = self._lab, None
        process, self._process = self._process, None
        opener, self._opener = self._opener, None
        lock, self._lock = self._lock, -1
        hosts = list(self._hosts.values())
        if keep and lab is not None and process is not None:
            await self._keep(lab)
        elif lab is not None:
            for host in hosts:
                host.abandon()
            with contextlib.suppress(HostError):
                await lab.request("end")
        await asyncio.gather(*(host.disconnect() for host in hosts), return_exceptions=True)
        if opener is not None:
            opener.close()
        if lab is not None:
            lab.close()
        try:
            if process is not None and not keep:
                await asyncio.to_thread(self._wait_for_end, process)
                labs.remove_files(self._directory)
                labs.unregister(self._directory)
        finally:
            if lock >= 0:
                os.close(lock)

    async def _keep(self, lab: LabConnection) -> None:
        record = json.loads((self._directory / labs.SPECIFICATION).read_text())
        labs.write_record(self._directory, {**record, "kept": True})
        await lab.request("keep")

    @staticmethod
    def _wait_for_end(process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            process.kill()  # `--kill-child` takes the lab along
            process.wait()
