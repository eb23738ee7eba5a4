"""Options and helpers that several commands share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from raftbed.errors import EXIT_INVALID, EXIT_UNKNOWN, EXIT_VALID, UsageError

if TYPE_CHECKING:
    from raftbed.hosts.inventory_file import Access
    from raftbed.plan import PlanSettings

EXIT = {"valid": EXIT_VALID, "invalid": EXIT_INVALID, "unknown": EXIT_UNKNOWN}
STORE = click.option(
    "--store",
    type=click.Path(path_type=Path, readable=False),
    default=Path("store"),
    show_default=True,
    help="Where runs are kept.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")
TIME = click.option(
    "--check-time-limit",
    type=click.FloatRange(0.1, 1e6),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="What the check of linearizability may take.",
)
MEMORY = click.option(
    "--check-memory-limit",
    type=click.IntRange(16, 1 << 30),
    default=4096,
    show_default=True,
    metavar="MIB",
    help="The same for memory.",
)


def access_of(options: Mapping[str, Any]) -> Access:
    """What --accept-new-keys and --ask-sudo-password add to an inventory; asks for the password.

    Raises:
        UsageError: there is no terminal to ask at.
    """
    from raftbed.hosts.inventory_file import Access

    password = ""
    if options["ask_sudo_password"]:
        import getpass
        import sys

        if not sys.stdin.isatty():
            raise UsageError("--ask-sudo-password needs a terminal.", remedy="Allow sudo without a password instead.")
        password = getpass.getpass("Password of sudo on the hosts: ")
    return Access(accept_new_keys=options["accept_new_keys"], sudo_password=password, up=bool(options.get("up")))


def is_file(test: str) -> bool:
    """What the user named is a file, and not a test."""
    return test.endswith((".toml", ".json")) or "/" in test


@contextlib.contextmanager
def naming(file: str) -> Iterator[None]:
    """Put the plan file's name before what is wrong with the plan.

    Raises:
        UsageError: what was wrong.
    """
    try:
        yield
    except UsageError as error:
        if not file:
            raise
        raise UsageError(f"{file}: {error.message}", remedy=error.remedy) from error


def settings_of(test: str, options: Mapping[str, Any]) -> PlanSettings:
    """What plan file and command line say together; the command line wins.

    Raises:
        UsageError: they contradict each other.
        PlanError: the file is none.
    """
    from raftbed import plan

    from_file = is_file(test)
    base = plan.read_settings(Path(test)) if from_file else plan.PlanSettings(test=test)
    if from_file and not base.test:
        raise UsageError(f"{test}: names no test.", remedy='Add a line such as: test = "partition-test"')
    names = (
        "nodes", "time_limit", "concurrency", "rate", "keys", "seed", "operation_timeout", "system", "hosts", "bug",
    )  # fmt: skip
    changes = {name: options.get(name) for name in names}
    if options["faults"] is not None:
        changes["faults"] = [name for name in options["faults"].split(",") if name not in ("", "none")]
    changed = any(changes[name] is not None for name in ("nodes", "seed", "time_limit")) or "faults" in changes
    if base.schedule is not None and changed:
        raise UsageError(
            f"{test}: spells its schedule out, so that nodes, faults, seed and time limit cannot be changed.",
            remedy="Take `schedule` out of the file, or leave the options away.",
        )
    return plan.override(base, **changes)
