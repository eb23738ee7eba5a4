"""What the controller runs with: noted in each run's manifest."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from importlib import metadata
from typing import Any

from raftbed import __version__


def versions() -> dict[str, str]:
    """Of raftbed, Python and the libraries that a run leans on."""
    versions = {"raftbed": __version__, "python": platform.python_version()}
    for library in ("aiohttp", "asyncssh", "msgspec"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[library] = metadata.version(library)
    return versions


def machine() -> dict[str, Any]:
    """What this machine is like, and who works on it."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cores": len(os.sched_getaffinity(0)),
        "user": "root" if os.geteuid() == 0 else "ordinary user",
        "implementation": sys.implementation.name,
    }
