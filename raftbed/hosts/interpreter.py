"""Which directories a local host must see so that the controller's own interpreter and packages work there."""

from __future__ import annotations

import importlib
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from typing import Final

_SYSTEM: Final = ("/usr", "/opt", "/nix", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc")
"""What every local host sees anyway."""

_PACKAGES: Final = ("raftbed", "raftbed.nodes", "raftbed.workloads", "raftbed.analysis")


def interpreter_directories() -> tuple[str, ...]:
    """Directories outside the system's own that this interpreter, its packages and raftbed's source live in.

    A virtual environment's python is a chain of links that ends in another installation: every link's place is
    listed, and both the prefixes. Of an editable install only the packages' folders are listed, not the checkout
    around them, which may hold a store with private keys.
    """
    found = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    found += [_prefix_of(link) for link in link_chain(sys.executable)]
    found += [
        path for name, path in sysconfig.get_paths().items() if name in {"stdlib", "platstdlib", "purelib", "platlib"}
    ]
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    found += [path for path in sys.path if os.path.basename(path) in {"site-packages", "dist-packages"}]
    found += _package_directories()
    return outermost(path for path in found if not is_below(path, _SYSTEM))


def link_chain(path: str) -> list[str]:
    """`path`, and every file that it leads to by symbolic links, to the last."""
    chain = [os.path.abspath(path)]
    while os.path.islink(chain[-1]) and len(chain) < 40:
        chain.append(os.path.normpath(os.path.join(os.path.dirname(chain[-1]), os.readlink(chain[-1]))))
    return chain


def _prefix_of(executable: str) -> str:
    directory = os.path.dirname(executable)
    return os.path.dirname(directory) if os.path.basename(directory) == "bin" else directory


def _package_directories() -> list[str]:
    directories: list[str] = []
    for name in _PACKAGES:
        try:
            directories += importlib.import_module(name).__path__
        except ImportError:
            continue
    return directories


def is_below(path: str, directories: Sequence[str]) -> bool:
    """Whether `path` is one of `directories` or lies below one."""
    return any(path == directory or path.startswith(f"{directory}/") for directory in directories)


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """The existing directories among `paths`, without those that lie below another of them, sorted."""
    kept: list[str] = []
    for path in sorted({os.path.abspath(path) for path in paths}):
        if path != "/" and os.path.isdir(path) and not is_below(path, kept):
            kept.append(path)
    return tuple(kept)
