"""The lab: the process that owns a network of local hosts. Run as ``python -m raftbed.hosts.lab`` by `LocalPool`.

Theory of operation. `unshare` starts this program as process 1 of fresh net, mount and pid namespaces (and, without
root, a user namespace). It makes a bridge, boots hosts into namespaces of their own below that, and then waits for
requests: JSON datagrams over a Unix socket, answered one after another. Because it is process 1, the kernel ends
every host with it; and it ends when its controller does, which it sees by a process descriptor and by the end of the
control socket, whichever is first. With "keep" it stays and goes on to answer at the socket ``control`` in its
directory.

Sockets that reach the hosts must be made inside the lab's network namespace. A child of its own does nothing but
that and passes them on (SCM_RIGHTS), so that a client's connect never waits for a boot.

How a host boots is in `raftbed.hosts.boot`.

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
from typing import Any, Final

from raftbed.hosts import labs
from raftbed.hosts.boot import BOOT_TIMEOUT, Boot, LabError, close_descriptors, run_ip, switch_off_ipv6
from raftbed.hosts.host_tree import HostSpecification, LabSpecification, make_disk

MESSAGE_LIMIT: Final = 1 << 18
"""Bytes of the largest request or answer."""

BRIDGE: Final = "br0"

BRIDGE_ADDRESS: Final = "02:52:42:ff:ff:fe"
"""Left alone, a bridge takes the lowest hardware address of its ports, which changes when a host crashes or reboots;
every other host's ARP entry for the lab would then be stale, and the controller cut off from all of them."""


def read_specification(path: Path) -> LabSpecification:
    """Read ``lab.json``."""
    record = json.loads(path.read_text())["lab"]
    record["hosts"] = tuple(HostSpecification(**host) for host in record["hosts"])
    record["visible"] = tuple(record["visible"])
    return LabSpecification(**record)


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
                f"link add {BRIDGE} address {BRIDGE_ADDRESS} type bridge",
                f"address add {lab.gateway}/{lab.prefix} broadcast + dev {BRIDGE}",
                f"link set {BRIDGE} up",
            ]
        )

    def boot(self, names: Sequence[str]) -> dict[str, Any]:
        """Boot hosts, all at once; those that are up are reset."""
        self.crash([name for name in names if self.machines[name].pid])
        lab = self.specification
        deadline = time.monotonic() + BOOT_TIMEOUT
        boots: dict[str, Boot] = {}
        try:
            for name in names:
                machine = self.machines[name]
                if not machine.has_disk:
                    make_disk(lab, machine.host)
                    machine.has_disk = True
                boots[name] = Boot(lab, machine.host)
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
    os.umask(0o022)  # a host's directories are for all its users; the directory above them is private
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
