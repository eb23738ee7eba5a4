"""The lab: the process that owns a network of local hosts. Run as ``python -m raftbed.hosts.lab`` by `LocalPool`.

Theory of operation. `unshare` starts this program as process 1 of fresh net, mount and pid namespaces (and, without
root, a user namespace). It makes a bridge, boots hosts into namespaces of their own below that, and then waits for
requests: JSON datagrams over a Unix socket, answered one after another. Because it is process 1, the kernel ends
every host with it; and it ends when its controller does, which it sees by a process descriptor and by the end of the
control socket, whichever is first. With "keep" it stays and goes on to answer at the socket ``control`` in its
directory.

Sockets that reach the hosts must be made inside the lab's network namespace. A child of its own does nothing but
that and passes them on (SCM_RIGHTS), so that a client's connect never waits for a boot.

A boot takes two forks: the first child enters new namespaces, the second is process 1 of the host's pid namespace,
assembles its file tree and becomes the SSH server. It tells how far it came over a pipe, which closes when the
server has taken over.

Standard library only, except that the embedded SSH server needs asyncssh.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from raftbed.hosts import labs
from raftbed.hosts import namespaces as ns
from raftbed.hosts.host_tree import SEARCH_PATH, HostSpecification, LabSpecification, make_disk, mount_tree

MESSAGE_LIMIT: Final = 1 << 18
"""Bytes of the largest request or answer."""

BRIDGE: Final = "br0"
_BOOT_TIMEOUT: Final = 20.0


class LabError(Exception):
    """A request to the lab failed; the text goes to the controller."""


def read_specification(path: Path) -> LabSpecification:
    """Read ``lab.json``."""
    record = json.loads(path.read_text())["lab"]
    record["hosts"] = tuple(HostSpecification(**host) for host in record["hosts"])
    record["visible"] = tuple(record["visible"])
    return LabSpecification(**record)


def run_ip(commands: Sequence[str]) -> None:
    """Hand a batch of commands to ip(8).

    Raises:
        LabError: with what ip said.
    """
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SEARCH_PATH}", "LC_ALL": "C"}
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


class Machine:
    """A host as the lab sees it: whether it is up, and its process 1.

    Parameters:
        host: what it is.
    """

    def __init__(self, host: HostSpecification) -> None:
        self.host = host
        self.pid = 0
        self.has_disk = False
        self.has_wire = False


class Boot:
    """A boot under way, seen from the lab. Forks at once.

    Parameters:
        lab: the lab's specification.
        machine: the host to boot.
    """

    def __init__(self, lab: LabSpecification, machine: Machine) -> None:
        self._name = machine.host.name
        report, report_writer = os.pipe()
        go_reader, self._go = os.pipe()
        child = os.fork()
        if child == 0:
            _enter_host(lab, machine.host, report_writer, go_reader)
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
                raise LabError(f"{self._name}: did not boot within {_BOOT_TIMEOUT:.0f} s")
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
        os.environ.clear()
        os.environ.update(lab.environment)
        try:
            embedded_server.serve(lab.environment, ready=lambda: os.close(report))
        finally:
            os._exit(1)
    os.close(report)
    while True:
        pid, status = os.wait()
        if pid == server:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def serve_sockets(channel: socket.socket) -> None:
    """Make a socket for each datagram "family type protocol" and pass it back, until the other end closes."""
    allowed = {socket.AF_INET, socket.AF_INET6}
    while request := channel.recv(64):
        try:
            family, kind, protocol = (int(number) for number in request.split())
            if family not in allowed:
                raise OSError(f"address family {family} is not for hosts")
            with socket.socket(family, kind, protocol) as made:
                socket.send_fds(channel, [b"ok"], [made.fileno()])
        except OSError as error:
            channel.send(str(error).encode())


class Lab:
    """The lab's state and its requests.

    Parameters:
        lab: its specification.
    """

    def __init__(self, lab: LabSpecification) -> None:
        self.specification = lab
        self.machines = {host.name: Machine(host) for host in lab.hosts}
        self.kept = False
        self.ending = False

    def make_network(self) -> None:
        """Make the bridge."""
        switch_off_ipv6()
        lab = self.specification
        run_ip(
            [
                "link set lo up",
                f"link add {BRIDGE} type bridge",
                f"address add {lab.gateway}/{lab.prefix} broadcast + dev {BRIDGE}",
                f"link set {BRIDGE} up",
            ]
        )

    def boot(self, names: Sequence[str]) -> dict[str, Any]:
        """Boot hosts, all at once; those that are up are reset."""
        self.crash([name for name in names if self.machines[name].pid])
        lab = self.specification
        deadline = time.monotonic() + _BOOT_TIMEOUT
        boots: dict[str, Boot] = {}
        try:
            for name in names:
                machine = self.machines[name]
                if not machine.has_disk:
                    make_disk(lab, machine.host)
                    machine.has_disk = True
                boots[name] = Boot(lab, machine)
            for name, boot in boots.items():
                self.machines[name].pid = boot.pid(deadline)
            wires = []
            for name in names:
                host = self.machines[name].host
                pid = self.machines[name].pid
                wires.append(f"link add {host.interface} type veth peer name eth0 address {host.mac} netns {pid}")
                wires.append(f"link set {host.interface} master {BRIDGE} up")
            for name in names:
                self.machines[name].has_wire = True
            run_ip(wires)
            for boot in boots.values():
                boot.go()
            for boot in boots.values():
                boot.wait(deadline)
        except BaseException:
            self.crash(names)
            raise
        finally:
            for boot in boots.values():
                boot.close()
        return {}

    def crash(self, names: Sequence[str]) -> dict[str, Any]:
        """Pull the plug of hosts: first the wire, so that no dying socket says goodbye, then every process."""
        self._unplug([self.machines[name] for name in names])
        self._kill(names)
        return {}

    def up(self) -> dict[str, Any]:
        """Which hosts are up."""
        return {"up": [name for name, machine in self.machines.items() if machine.pid]}

    def reap(self) -> None:
        """Take note of processes that ended by themselves."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, _ = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                for machine in self.machines.values():
                    if machine.pid == pid:
                        machine.pid = 0
                        self._unplug([machine])

    def open_sockets(self) -> socket.socket:
        """Start a maker of sockets; the controller's end of the channel to it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if os.fork() == 0:
            with contextlib.suppress(BaseException):
                close_descriptors([ours.fileno()])
                signal.set_wakeup_fd(-1)
                serve_sockets(ours)
            os._exit(0)
        ours.close()
        return theirs

    def end(self) -> None:
        """Take the hosts and their files away."""
        self._kill(list(self.machines))
        directory = Path(self.specification.directory)
        with contextlib.suppress(OSError, ValueError, KeyError):
            # Where the controller registered it: a user namespace's root would look in root's places.
            labs.remove_link(Path(json.loads((directory / labs.SPECIFICATION).read_text())["registered"]))
        shutil.rmtree(directory, ignore_errors=True)

    def _kill(self, names: Sequence[str]) -> None:
        pids = [self.machines[name].pid for name in names if self.machines[name].pid]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)  # returns when the last process of its pid namespace is gone
        for name in names:
            self.machines[name].pid = 0

    @staticmethod
    def _unplug(machines: Sequence[Machine]) -> None:
        for machine in machines:
            if machine.has_wire:
                machine.has_wire = False
                with contextlib.suppress(LabError):  # it went with the other end's namespace
                    run_ip([f"link delete {machine.host.interface}"])


class Requests:
    """Reads requests from the control sockets and answers them, until the lab ends.

    Parameters:
        lab: what they act on.
        control: the connection to the controller that started the lab.
        controller: a process descriptor of that controller.
    """

    def __init__(self, lab: Lab, control: socket.socket, controller: int) -> None:
        self._lab = lab
        self._first = control
        self._controller = controller
        self._channels = {control.fileno(): control}
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder = os.open(lab.specification.directory, os.O_PATH | os.O_CLOEXEC)
        self._listener.bind(f"/proc/self/fd/{folder}/control")  # the path itself may be too long for a socket
        os.close(folder)
        self._listener.listen(8)

    def serve(self) -> None:
        """Until the controller dies (unless kept) or says "end"."""
        wakeup, waker = os.pipe()
        os.set_blocking(wakeup, False)
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        while not self._lab.ending:
            waiting: list[Any] = [wakeup, self._listener, *self._channels.values()]
            if not self._lab.kept:
                waiting.append(self._controller)
            ready, _, _ = select.select(waiting, [], [])
            for item in ready:
                if item == wakeup:
                    os.read(wakeup, 512)
                    self._lab.reap()
                elif item == self._controller:
                    return
                elif item is self._listener:
                    channel, _ = self._listener.accept()
                    self._channels[channel.fileno()] = channel
                elif not self._receive(item):
                    return

    def _receive(self, channel: socket.socket) -> bool:
        """Answer one request; False when the lab must end."""
        try:
            message = channel.recv(MESSAGE_LIMIT)
        except OSError:
            message = b""
        if not message:
            del self._channels[channel.fileno()]
            channel.close()
            return self._lab.kept or channel is not self._first
        passed: list[socket.socket] = []
        answer: dict[str, Any] = {}
        try:
            request = json.loads(message)
            answer["id"] = request["id"]
            answer.update(self._answer(request, passed))
        except (LabError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            answer["error"] = str(error) or type(error).__name__
        with contextlib.suppress(OSError):
            socket.send_fds(channel, [json.dumps(answer).encode()], [item.fileno() for item in passed])
        for item in passed:
            item.close()
        return not self._lab.ending

    def _answer(self, request: dict[str, Any], passed: list[socket.socket]) -> dict[str, Any]:
        lab = self._lab
        action: str = request["do"]
        named: dict[str, Callable[[Sequence[str]], dict[str, Any]]] = {"boot": lab.boot, "crash": lab.crash}
        if action in named:
            return named[action](request["hosts"])
        if action == "sockets":
            passed.append(lab.open_sockets())
        elif action == "up":
            return lab.up()
        elif action == "keep":
            lab.kept = True
        elif action == "end":
            lab.end()
            lab.ending = True
        else:
            raise LabError(f"no such request: {action}")
        return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the lab; returns when it has ended."""
    parser = argparse.ArgumentParser(prog="raftbed.hosts.lab")
    parser.add_argument("--specification", type=Path, required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--controller", type=int, required=True)
    options = parser.parse_args(arguments)
    control = socket.socket(fileno=options.control)
    for fd in (options.control, options.controller):
        os.set_inheritable(fd, False)
    os.chdir("/")
    lab = Lab(read_specification(options.specification))
    try:
        if not lab.specification.server:
            from raftbed.hosts import embedded_server  # noqa: F401  imported once, here, and forked with each host
        gc.collect()
        gc.freeze()
        lab.make_network()
        requests = Requests(lab, control, options.controller)
        control.send(json.dumps({"id": 0}).encode())
    except (LabError, OSError, ImportError, subprocess.SubprocessError) as error:
        control.send(json.dumps({"id": 0, "error": str(error)}).encode())
        return 1
    try:
        requests.serve()
    finally:
        if not lab.ending:
            lab.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
