"""How a local host boots, from a fork of the lab to its SSH server.

Theory of operation. A boot takes two forks: the first child enters new namespaces, the second is process 1 of the
host's pid namespace, assembles its file tree and becomes the SSH server. The lab meanwhile lays the wire into the new
network namespace, and says "go" over a pipe. Over another pipe the host tells what went wrong; that pipe closes
without a word when the server has taken over.

Standard library only, except that the embedded SSH server needs asyncssh.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from raftbed.hosts import namespaces as ns
from raftbed.hosts.host_tree import SEARCH_PATH, HostSpecification, LabSpecification, mount_tree

BOOT_TIMEOUT: Final = 20.0
"""Seconds for a boot."""


class LabError(Exception):
    """A request to the lab failed; the text goes to the controller."""


def run_ip(commands: Sequence[str]) -> None:
    """Hand a batch of commands to ip(8).

    Raises:
        LabError: with what ip said.
    """
    environment = {**os.environ, "PATH": f"{SEARCH_PATH}:{os.environ.get('PATH', '')}", "LC_ALL": "C"}
    batch = "".join(f"{command}\n" for command in commands)
    done = subprocess.run(
        ["ip", "-batch", "-"], input=batch, capture_output=True, text=True, env=environment, timeout=20, check=False
    )
    if done.returncode != 0:
        raise LabError(f"ip: {(done.stderr or done.stdout).strip()}")


def switch_off_ipv6() -> None:
    """No IPv6 in this network namespace, not even link-local: faults then need to cut one protocol only."""
    for which in ("all", "default"):
        with contextlib.suppress(OSError):  # a kernel without IPv6
            Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6").write_text("1")


def close_descriptors(keep: Sequence[int]) -> None:
    """Close everything above standard error except `keep`."""
    low = 3
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, 1 << 20)


class Boot:
    """A boot under way, seen from the lab. Forks at once.

    Parameters:
        lab: the lab's specification.
        host: the host to boot.
    """

    def __init__(self, lab: LabSpecification, host: HostSpecification) -> None:
        self._name = host.name
        report, report_writer = os.pipe()
        go_reader, self._go = os.pipe()
        child = os.fork()
        if child == 0:
            _enter_host(lab, host, report_writer, go_reader)
        os.close(report_writer)
        os.close(go_reader)
        self._report = report
        self._child = child

    def pid(self, deadline: float) -> int:
        """Wait until the namespaces exist; the host's process 1."""
        line = self._read_line(deadline)
        os.waitpid(self._child, 0)
        if not line.startswith("pid "):
            raise LabError(f"{self._name}: {line or 'its first process ended without a word'}")
        return int(line[4:])

    def go(self) -> None:
        """The wire is there: let the host configure it and start its SSH server."""
        os.write(self._go, b"g")

    def wait(self, deadline: float) -> None:
        """Wait until the SSH server has taken over."""
        line = self._read_line(deadline)
        if line:
            raise LabError(f"{self._name}: {line}")

    def close(self) -> None:
        """Close the pipes."""
        os.close(self._report)
        os.close(self._go)

    def _read_line(self, deadline: float) -> str:
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._report], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise LabError(f"{self._name}: did not boot within {BOOT_TIMEOUT:.0f} s")
            # Byte by byte: two lines may come at once.
            byte = os.read(self._report, 1)
            if not byte:
                break
            line += byte
        return line.decode(errors="replace").strip()


def _enter_host(lab: LabSpecification, host: HostSpecification, report: int, go: int) -> NoReturn:
    """The first child: new namespaces, then the second child, whose pid is reported."""
    try:
        ns.unshare(ns.CLONE_NEWNET | ns.CLONE_NEWNS | ns.CLONE_NEWPID | ns.CLONE_NEWUTS | ns.CLONE_NEWIPC)
        child = os.fork()
        if child == 0:
            _become_host(lab, host, report, go)
        os.write(report, f"pid {child}\n".encode())
    except OSError as error:
        os.write(report, f"namespaces: {error}\n".encode())
    os._exit(0)


def _become_host(lab: LabSpecification, host: HostSpecification, report: int, go: int) -> NoReturn:
    """Process 1 of a host, from its first instruction to its SSH server."""
    try:
        os.setsid()
        log = os.open(
            lab.host_directory(host.name) / "ssh.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
        )
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        for fd, standard in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(fd, standard)
        close_descriptors([report, go])
        os.umask(0o022)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        socket.sethostname(host.name)
        switch_off_ipv6()
        mount_tree(lab, host)
        if not os.read(go, 1):
            os._exit(1)
        os.close(go)
        run_ip(
            [
                "link set lo up",
                f"address add {host.address}/{lab.prefix} broadcast + dev eth0",
                "link set eth0 up",
            ]
        )
        if lab.server:
            os.set_inheritable(report, False)
            arguments = [lab.server, "-D", "-e", "-f", "/etc/ssh/sshd_config"]
            os.execve(lab.server, arguments, dict(lab.environment))  # noqa: S606  no shell is wanted
        _serve_embedded(lab, report)
    except BaseException as error:
        message = " ".join(str(error).split()) or type(error).__name__
        with contextlib.suppress(OSError):
            os.write(report, f"{message}\n".encode())
        os._exit(1)


def _serve_embedded(lab: LabSpecification, report: int) -> NoReturn:
    """Run the embedded SSH server below a process 1 that only reaps, and ends with it."""
    from raftbed.hosts import embedded_server

    server = os.fork()
    if server == 0:
        # A command may end before it has read its input: that must be an error to the server, not its death. What it
        # starts gets the default back (subprocess restores it).
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        os.environ.clear()
        os.environ.update(lab.environment)
        try:
            embedded_server.serve(lab.environment, ready=lambda: os.close(report))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)
    os.close(report)
    while True:
        pid, status = os.wait()
        if pid == server:
            ending = os.waitstatus_to_exitcode(status)
            how = f"status {ending}" if ending >= 0 else f"signal {-ending}"
            os.write(2, f"the SSH server ended with {how}\n".encode())
            os._exit(ending & 0xFF)
