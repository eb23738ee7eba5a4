"""Every error that raftbed raises on purpose.

::

    RaftbedError                 one readable sentence, and the exit code of the command that meets it
    ├── UsageError         254   the command line or a plan asks for something that does not exist
    │   └── PlanError      254   a plan file is malformed: names file, key and remedy
    ├── HistoryError       254   a history cannot be read: names file and line
    ├── HostError          255   a host cannot be made, reached or used: names the host
    │   ├── CommandError   255   a command on a host failed: names host, command, status and stderr
    │   └── HostsError     255   several hosts cannot be used: one sentence for each
    ├── DeployError        255   code could not be brought to a host
    ├── FaultError         255   a fault could not be injected, proved or healed
    ├── Interrupted        255   the user stopped a run before there was anything to check
    └── StoreError         255   a run directory cannot be written or read

A violation that a checker finds is never an exception: it is a :class:`raftbed.model.Verdict`.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_VALID = 0
EXIT_INVALID = 1
EXIT_UNKNOWN = 2
EXIT_USAGE = 254
EXIT_COULD_NOT_RUN = 255


class RaftbedError(Exception):
    """Base of all errors raised on purpose; ``str()`` is one sentence fit to show to a user.

    Parameters:
        message: what is wrong and where.
        remedy: what the user can do about it, as a sentence or a command; shown behind the message.
    """

    exit_code = EXIT_COULD_NOT_RUN

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class UsageError(RaftbedError):
    """The command line or a plan asks for something that does not exist."""

    exit_code = EXIT_USAGE


class PlanError(UsageError):
    """A plan is malformed or contradicts itself."""


class HistoryError(RaftbedError):
    """A history file cannot be read; names the file and the line."""

    exit_code = EXIT_USAGE


class HostError(RaftbedError):
    """A host cannot be made, reached or used.

    Parameters:
        host: name of the host, or "" when the error concerns all of them.
    """

    def __init__(self, message: str, *, host: str = "", remedy: str = "") -> None:
        super().__init__(f"{host}: {message}" if host else message, remedy=remedy)
        self.host = host


class HostsError(HostError):
    """Several hosts cannot be used, or one for several reasons; ``str()`` has a line for each reason.

    Parameters:
        problems: what is wrong, each with its remedy.
        of: how many hosts there are.
    """

    def __init__(self, problems: Sequence[HostError], *, of: int) -> None:
        affected = len({problem.host for problem in problems})
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{affected} of {of} hosts cannot be used as they are:{lines}")
        self.problems = tuple(problems)


class CommandError(HostError):
    """A command on a host ended with a status other than zero, or did not end in time.

    Parameters:
        host: name of the host.
        command: the command as a shell would read it (of a script, the message shows the beginning).
        status: exit status, or None when it was ended by a time-out or a lost connection.
        stderr: what it wrote to standard error (its last 2,000 characters are shown).
    """

    def __init__(self, *, host: str, command: str, status: int | None, stderr: str, remedy: str = "") -> None:
        ending = f"ended with status {status}" if status is not None else "did not end in time"
        said = stderr.strip()[-2000:]
        message = f"`{_shortened(command)}` {ending}" + (f": {said}" if said else ".")
        super().__init__(message, host=host, remedy=remedy)
        self.command = command
        self.status = status
        self.stderr = stderr


def _shortened(command: str) -> str:
    first, *others = command.split("\n")
    return f"{first[:300]} ..." if others or len(first) > 300 else command


class DeployError(HostError):
    """Code could not be brought to a host."""


class FaultError(HostError):
    """A fault could not be injected, proved or healed."""


class Interrupted(RaftbedError):
    """The user stopped a run before there was anything to check."""


class StoreError(RaftbedError):
    """A run directory cannot be written or read."""
