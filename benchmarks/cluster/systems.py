"""The clusters that are compared: processes on loopback, with their data in a directory of the caller's."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

_KEYS = 128
_VALUE = "v" * 64
_START_TIMEOUT = 30.0


class Unavailable(Exception):
    """This system cannot be measured here; says why."""


class System(ABC):
    """A cluster. Subclasses say how a node is started, who leads, and what requests look like.

    Parameters:
        directory: for data and logs.
        size: number of nodes.

    Attributes:
        name: in the tables.
        kinds: of operation that it has; each is a method, too, which makes the request for a key.
    """

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = ("write", "read")

    def __init__(self, directory: Path, size: int = 3) -> None:
        self.directory = directory / self.name
        self.size = size
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ports = free_ports(size)
        self.peer_ports = free_ports(size)
        self.leader = 0

    def start(self) -> None:
        """Start all nodes and wait until one leads.

        Raises:
            Unavailable: it is not installed, or does not start.
        """
        self.directory.mkdir(parents=True)
        for number in range(self.size):
            with (self.directory / f"{number}.log").open("wb") as log:
                command = self.command(number)
                self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        self._until(self.begin)
        self.find_leader()

    def find_leader(self) -> None:
        """Wait until one node leads, and note which."""
        self.leader = int(self._until(lambda: self.leading() + 1)) - 1

    def _until(self, look: Callable[[], int]) -> int:
        deadline = time.monotonic() + _START_TIMEOUT
        while time.monotonic() < deadline:
            try:
                if found := look():
                    return found
            except (OSError, urllib.error.URLError, KeyError, ValueError):
                pass
            time.sleep(0.1)
        raise Unavailable(f"did not start within {_START_TIMEOUT:g} s; its log: {self.last_words()}")

    def last_words(self) -> str:
        """The end of the first node's log."""
        return (self.directory / "0.log").read_text(errors="replace")[-500:]

    def stop(self) -> None:
        """End all nodes, by their process ids."""
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def pids(self) -> list[int]:
        """Process ids, the leader's first."""
        pids = [process.pid for process in self.processes]
        return [pids[self.leader], *(pid for number, pid in enumerate(pids) if number != self.leader)]

    def requests(self, kind: str) -> list[bytes]:
        """Requests of a kind, over some keys."""
        make: Callable[[str], bytes] = getattr(self, kind)
        return [make(f"key{number}") for number in range(_KEYS)]

    # -- what differs -------------------------------------------------------------------------------------------

    @abstractmethod
    def command(self, number: int) -> list[str]:
        """Starts a node."""

    def begin(self) -> int:
        """Make the nodes a cluster, if they do not do it by themselves; true when it is done."""
        return 1

    @abstractmethod
    def leading(self) -> int:
        """Number of the node that leads, -1 for none."""

    @abstractmethod
    def write(self, key: str) -> bytes:
        """A durable write."""


class Raftbed(System):
    """The node of this repository."""

    name = "raftbed"
    # etcd's default timeouts, so that a busy machine is no reason for an election in the one and not in the other
    options: Mapping[str, Any] = {"election_timeout_min": 1000, "election_timeout_max": 2000, "heartbeat_interval": 100}

    def command(self, number: int) -> list[str]:
        peers = {f"n{other + 1}": f"127.0.0.1:{port}" for other, port in enumerate(self.ports)}
        settings = {
            "id": f"n{number + 1}",
            "cluster": "benchmark",
            "listen": f"127.0.0.1:{self.ports[number]}",
            "peers": peers,
            "data": str(self.directory / f"n{number + 1}"),
            "raft": dict(self.options),
        }
        file = self.directory / f"n{number + 1}.json"
        file.write_text(json.dumps(settings))
        return [sys.executable, "-m", "raftbed.nodes", "--config", str(file)]

    def begin(self) -> int:
        for port in self.ports:
            call(port, "/status")
        if call(self.ports[0], "/status")["last_log_index"] == 0:
            call(self.ports[0], "/admin/initialize", {"members": [f"n{number + 1}" for number in range(self.size)]})
        return 1

    def leading(self) -> int:
        leader = call(self.ports[0], "/status")["leader"]
        return int(leader[1:]) - 1 if leader else -1

    def write(self, key: str) -> bytes:
        return post(f"/kv/{key}/put", {"value": _VALUE})

    def read(self, key: str) -> bytes:
        return f"GET /kv/{key} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


class DefaultRaftbed(Raftbed):
    """The same with the default configuration, whose heartbeats are quicker."""

    options: Mapping[str, Any] = {}


class Etcd(System):
    """etcd, through its JSON gateway."""

    name = "etcd"

    def start(self) -> None:
        if shutil.which("etcd") is None:
            raise Unavailable("etcd is not installed; on Debian: apt-get install etcd-server")
        super().start()

    def command(self, number: int) -> list[str]:
        own, peer = self.ports[number], self.peer_ports[number]
        cluster = ",".join(f"n{other}=http://127.0.0.1:{port}" for other, port in enumerate(self.peer_ports))
        options = {
            "name": f"n{number}",
            "data-dir": str(self.directory / f"n{number}"),
            "listen-client-urls": f"http://127.0.0.1:{own}",
            "advertise-client-urls": f"http://127.0.0.1:{own}",
            "listen-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-advertise-peer-urls": f"http://127.0.0.1:{peer}",
            "initial-cluster": cluster,
            "initial-cluster-state": "new",
            "logger": "zap",
            "log-level": "error",
        }
        return ["etcd", *(f"--{name}={value}" for name, value in options.items())]

    def leading(self) -> int:
        for number, port in enumerate(self.ports):
            status = call(port, "/v3/maintenance/status", {})
            if status["leader"] == status["header"]["member_id"]:
                return number
        return -1

    def write(self, key: str) -> bytes:
        return post("/v3/kv/put", {"key": _base64(key), "value": _base64(_VALUE)})

    def read(self, key: str) -> bytes:
        return post("/v3/kv/range", {"key": _base64(key)})


class PySyncObj(System):
    """PySyncObj behind an aiohttp shim, its journal synced; commands are sent at once. It has no linearizable read."""

    name = "pysyncobj"
    kinds = ("write",)
    batch = "no"

    def start(self) -> None:
        if importlib.util.find_spec("pysyncobj") is None:
            raise Unavailable("PySyncObj is not installed: pip install -e '.[benchmark]'")
        super().start()

    def command(self, number: int) -> list[str]:
        names = [f"127.0.0.1:{port}" for port in self.peer_ports]
        own = names.pop(number)
        shim = str(Path(__file__).with_name("pysyncobj_node.py"))
        journal = str(self.directory / f"{number}.journal")
        return [sys.executable, shim, str(self.ports[number]), journal, self.batch, own, *names]

    def leading(self) -> int:
        for port in self.ports:
            status = call(port, "/status")
            if not status["leader"]:
                return -1
        return self.peer_ports.index(int(status["leader"].rpartition(":")[2]))

    def write(self, key: str) -> bytes:
        return post(f"/kv/{key}/put", {"value": _VALUE})


class BatchedPySyncObj(PySyncObj):
    """The same as it is by default: commands are gathered for a tenth of a second."""

    name = "pysyncobj-batched"
    batch = "yes"


SYSTEMS: Sequence[type[System]] = (Raftbed, Etcd, PySyncObj, BatchedPySyncObj)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def call(port: int, path: str, body: Any = None) -> Any:
    """One request, not measured."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=data, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=2) as response:
        return json.load(response)


def post(path: str, body: Any) -> bytes:
    """A POST, as it goes over the wire."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
