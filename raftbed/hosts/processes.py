"""Processes on a host: started detached, found again by their pid file, signalled with the effect verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, cast

from raftbed.errors import HostError
from raftbed.hosts.base import COMMAND_TIMEOUT, Host

Signal = Literal["KILL", "TERM", "INT", "QUIT", "STOP", "CONT", "HUP", "USR1", "USR2"]
State = Literal["running", "stopped", "gone"]

CLEAN_ENVIRONMENT: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
"""What a detached process finds in its environment beside what it is given."""


@dataclass(frozen=True, slots=True)
class ProcessEvidence:
    """What /proc on a host says of the process of a pid file.

    Attributes:
        state: "running", "stopped" (by SIGSTOP), or "gone".
        pid: of the process; 0 when no pid file names one.
        start: when it started, in clock ticks since the host's kernel booted: tells it from a later process that
            got the same pid.
        reason: for "gone", why it is taken for gone: "no pid file", "no such process", "ended", ...
    """

    state: State
    pid: int
    start: int
    reason: str = ""

    @property
    def is_alive(self) -> bool:
        """Whether the process exists, stopped or not."""
        return self.state != "gone"


@cache
def _script() -> str:
    return Path(__file__).with_name("process.sh").read_text(encoding="utf-8")


def _command(*arguments: str) -> list[str]:
    return ["/bin/sh", "-c", _script(), "process", *arguments]


def start_command(
    argv: Sequence[str], *, environment: Mapping[str, str], directory: str, log: str, pid_file: str = ""
) -> list[str]:
    """What starts a process detached; see `start_detached`. The directory must exist."""
    settings = [f"{name}={value}" for name, value in {**CLEAN_ENVIRONMENT, **environment}.items()]
    return _command("start", directory, log, pid_file, "env", "-i", *settings, *argv)


def state_command(pid_file: str) -> list[str]:
    """What asks for the state of a process; see `process_alive`."""
    return _command("state", pid_file)


def signal_command(pid_file: str, signal: Signal, *, timeout: float) -> list[str]:
    """What signals a process group and waits for the effect; see `signal_process`."""
    return _command("signal", pid_file, signal, str(max(1, int(timeout))))


def end_command(pid_file: str, *, timeout: float) -> list[str]:
    """What ends the node of a pid file, and any other that runs in that directory; see `end_processes`."""
    return _command("end", pid_file, str(max(1, int(timeout))))


def read_evidence(printed: str, *, host: str) -> ProcessEvidence:
    """What one of these commands printed.

    Raises:
        HostError: it is nothing that they print.
    """
    words = printed.partition("\n")[0].strip().split(" ", 3)
    if len(words) < 3 or words[0] not in {"running", "stopped", "gone"}:
        raise HostError(f"an unexpected answer about a process: {printed.strip()!r}.", host=host)
    return ProcessEvidence(
        cast(State, words[0]), int(words[1]), int(words[2]), words[3].strip() if len(words) > 3 else ""
    )


async def _call(host: Host, command: Sequence[str], *, timeout: float) -> ProcessEvidence:
    return read_evidence((await host.run(command, timeout=timeout)).stdout, host=host.name)


async def start_detached(
    host: Host,
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    directory: str,
    log: str,
    pid_file: str = "",
    timeout: float = COMMAND_TIMEOUT,
) -> ProcessEvidence:
    """Start a process that outlives the connection, in a session and a process group of its own.

    It does not wait for the process to do anything: readiness is for the caller to probe.

    Parameters:
        host: where.
        argv: the command; never read by a shell.
        environment: added to `CLEAN_ENVIRONMENT`; nothing else is passed on.
        directory: its working directory, made when missing.
        log: file to which standard output and standard error are appended.
        pid_file: file to which "PID STARTTIME" is written, "" for none. A process that writes its own is found by this
            one until then.
        timeout: seconds for the start.

    Raises:
        CommandError: it could not be started.
    """
    command = start_command(argv, environment=environment, directory=directory, log=log, pid_file=pid_file)
    await host.run(["mkdir", "-p", "-m", "700", "--", directory], timeout=timeout)
    return await _call(host, command, timeout=timeout)


async def process_alive(host: Host, pid_file: str, *, timeout: float = COMMAND_TIMEOUT) -> ProcessEvidence:
    """What became of the process whose "PID STARTTIME" stands in `pid_file`.

    Raises:
        CommandError, HostError: the host cannot be asked.
    """
    return await _call(host, state_command(pid_file), timeout=timeout)


async def signal_process(
    host: Host, pid_file: str, signal: Signal, *, timeout: float = COMMAND_TIMEOUT
) -> ProcessEvidence:
    """Signal the process group of `pid_file` and wait for the effect: gone for KILL and TERM, stopped for STOP.

    A process that is gone already is not an error; a stranger that got its pid is not touched.

    Parameters:
        host: where.
        pid_file: holds "PID STARTTIME".
        signal: its name without SIG.
        timeout: seconds within which the effect must show.

    Returns:
        the evidence after the signal.

    Raises:
        CommandError: the signal had no effect in time.
    """
    return await _call(host, signal_command(pid_file, signal, timeout=timeout), timeout=timeout + 5.0)


async def end_processes(host: Host, pid_file: str, *, timeout: float = COMMAND_TIMEOUT) -> ProcessEvidence:
    """Kill the process group of `pid_file`, and nodes that run in its directory and that no pid file names.

    Those are found by their working directory and by their command line, which names the `node.json` beside the pid
    file. They are left behind where a directory is made anew under a node.

    Returns:
        the evidence of the process of the pid file.

    Raises:
        CommandError: the signal had no effect in time.
    """
    return await _call(host, end_command(pid_file, timeout=timeout), timeout=timeout + 5.0)
