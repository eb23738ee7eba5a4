"""Who runs this, for libraries that insist on a name: a container's user often is a number without one."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Final

from raftbed.errors import UsageError

_NO_HOME: Final = "/nonexistent"
"""What Debian calls the home of users without one."""


def has_name() -> bool:
    """This user has a name: in the environment, or in the password database."""
    try:
        return bool(getpass.getuser())
    except (KeyError, OSError):  # OSError since Python 3.13
        return False


def ensure_name_and_home() -> None:
    """Give this process both where it has none: asyncssh, fabric and paramiko fail without, whoever they log in as.

    The name is the user's number, which is nobody's login, and the home a place where nothing is.
    """
    if not has_name():
        os.environ["LOGNAME"] = str(os.geteuid())
    if not has_home():
        os.environ["HOME"] = _NO_HOME


def has_home() -> bool:
    """A path that begins with "~" leads somewhere."""
    return os.path.expanduser("~") not in ("~", _NO_HOME)


def expand_home(path: str) -> Path:
    """`path` with the home directory in the place of the "~" that it may begin with.

    Raises:
        UsageError: it is not known whose, or where it is.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: the home directory that it begins with is not known.",
                         remedy="Set HOME, or write the whole path.") from None  # fmt: skip
