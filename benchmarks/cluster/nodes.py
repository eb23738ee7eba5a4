"""Nodes of this repository that come and go one by one, and what the kernel knows of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.systems import DefaultRaftbed, call, free_ports

MIB = 1 << 20


class Nodes(DefaultRaftbed):
    """A cluster with the default configuration, whose nodes are killed, restarted, and joined by others.

    Parameters:
        directory: for data and logs.
        size: nodes at first.
        raft: fields of the nodes' configuration that are not the default.
    """

    def __init__(self, directory: Path, size: int, raft: Mapping[str, Any] | None = None) -> None:
        super().__init__(directory, size)
        self.options = dict(raft or {})

    def join_empty(self) -> int:
        """Start one more node, which knows nobody; returns its number."""
        self.ports += free_ports(1)
        number = len(self.ports) - 1
        self.processes.append(self._spawn(number, alone=True))
        self._until(lambda: bool(call(self.ports[number], "/status")))
        return number

    def end(self, number: int, how: signal.Signals) -> None:
        """Send a node a signal and wait for its end."""
        self.processes[number].send_signal(how)
        self.processes[number].wait(60)

    def restart(self, number: int) -> float:
        """Start it again on its data; returns the seconds until it answered."""
        begun = time.monotonic()
        self.processes[number] = self._spawn(number, alone=None)
        self._until(lambda: bool(call(self.ports[number], "/status")["last_log_index"]))
        return time.monotonic() - begun

    def _spawn(self, number: int, *, alone: bool | None) -> subprocess.Popen[bytes]:
        """`alone`: with its own address only; None: with the configuration that it had."""
        name, own = f"n{number + 1}", f"127.0.0.1:{self.ports[number]}"
        command = [sys.executable, "-m", "raftbed.nodes", "--config", str(self.directory / f"{name}.json")]
        if alone:
            command = [sys.executable, "-m", "raftbed.nodes", "--id", name, "--cluster", "benchmark"]
            command += ["--peer", f"{name}={own}", "--data", str(self.directory / name)]
        elif number >= self.size:
            return self._spawn(number, alone=True)
        with (self.directory / f"{number}.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def leading(self) -> int:
        """Number of the node that leads, as a majority sees it; -1 for none."""
        said = [leader for leader in self.ask_all(lambda status: status["leader"]) if leader]
        found = max(set(said), key=said.count, default=None)
        return int(found[1:]) - 1 if found and said.count(found) > len(self.processes) // 2 else -1

    def ask_all(self, of: Callable[[Mapping[str, Any]], Any]) -> list[Any]:
        """Something of every node's status; None of one that does not answer."""
        answers = []
        for port in self.ports:
            try:
                answers.append(of(call(port, "/status")))
            except (OSError, ValueError):
                answers.append(None)
        return answers

    def caught_up(self, timeout: float = 60.0) -> None:
        """Wait until every node has applied what the furthest had applied when this was called.

        Raises:
            TimeoutError: one did not.
        """
        goal = max(applied or 0 for applied in self.ask_all(lambda status: status["last_applied"]))
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if all((applied or 0) >= goal for applied in self.ask_all(lambda status: status["last_applied"])):
                return
            time.sleep(0.05)
        raise TimeoutError(f"not every node had entry {goal} within {timeout:g} s")

    def peak_memory(self, number: int) -> float:
        """The most resident memory that a node's process ever had, in MiB."""
        return memory(self.processes[number].pid, "VmHWM")


def memory(pid: int, field: str = "VmRSS") -> float:
    """Of a process, in MiB.

    Raises:
        OSError: it is gone.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has no memory any more")
