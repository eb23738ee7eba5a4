"""Wheelhouses: the packages that nodes import, for the Python of a host that does not share the controller's.

A host whose Python, machine and C library are like the controller's gets the packages that are installed here; others
get wheels that fit them from the package index. Either way they are unpacked on the controller: a host needs neither
pip nor a network.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raftbed.archive import make_archive
from raftbed.errors import DeployError
from raftbed.hosts.base import Host
from raftbed.hosts.local_user import has_home

OLDEST_PYTHON: Final = (3, 11)
_DOWNLOAD_TIMEOUT: Final = 300.0

_INTERPRETER_SCRIPT: Final = """
import json, platform, sys, sysconfig
libc, version = platform.libc_ver()
if not libc and "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
    libc, version = "musl", "1.2"
print(json.dumps([list(sys.version_info[:3]), platform.machine(), libc, version, sys.implementation.name]))
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A host's Python.

    Attributes:
        version: major, minor, micro.
        machine: "x86_64", "aarch64", ...
        libc: "glibc" or "musl".
        libc_version: major, minor.
    """

    version: tuple[int, int, int]
    machine: str
    libc: str
    libc_version: tuple[int, int]

    @property
    def runs_what_runs_here(self) -> bool:
        """Packages that are installed here work there: the same Python and machine, a C library that is not older."""
        here = own_interpreter()
        same = (self.version[:2], self.machine, self.libc) == (here.version[:2], here.machine, here.libc)
        return same and self.libc_version >= here.libc_version

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run here (PEP 600, PEP 656), best first."""
        major, minor = self.libc_version
        if self.libc == "musl":
            return [f"musllinux_{major}_{number}_{self.machine}" for number in range(minor, -1, -1)]
        tags = [f"manylinux_{major}_{number}_{self.machine}" for number in range(minor, 4, -1)]
        return [*tags, *(f"{old}_{self.machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1"))]


@functools.cache
def own_interpreter() -> Interpreter:
    """The interpreter that runs this."""
    said = subprocess.run([sys.executable, "-I", "-c", _INTERPRETER_SCRIPT], capture_output=True, check=True)
    return _interpreter(*json.loads(said.stdout)[:4])


def _interpreter(version: list[int], machine: str, libc: str, libc_version: str) -> Interpreter:
    major, minor = [*libc_version.split("."), "0"][:2]
    return Interpreter((version[0], version[1], version[2]), machine, libc or "glibc", (int(major), int(minor)))


async def examine(host: Host, python: str) -> Interpreter:
    """A host's interpreter.

    Raises:
        DeployError: there is none that fits; names host, version and remedy.
        HostError: the host cannot be reached.
    """
    install = "Install Python 3.11 or later on it: apt-get install python3"
    asked = await host.run([python, "-c", _INTERPRETER_SCRIPT], check=False, timeout=20.0)
    if asked.status != 0:
        raise DeployError(f"it has no usable {python}: {asked.stderr.strip()[-300:]}", host=host.name, remedy=install)
    try:
        *described, implementation = json.loads(asked.stdout)
        found = _interpreter(*described)
    except (ValueError, TypeError, LookupError) as error:
        raise DeployError(f"{python} gave an unexpected answer: {asked.stdout[:200]!r}.", host=host.name) from error
    shown = ".".join(map(str, found.version))
    if found.version < OLDEST_PYTHON or implementation != "cpython":
        raise DeployError(f"its {python} is {implementation} {shown}; nodes need CPython 3.11 or later.",
                          host=host.name, remedy=install)  # fmt: skip
    return found


_MAKING: Final = threading.Lock()
"""Hosts that are alike need one wheelhouse, not one each; and ast.parse of Python 3.11 fails in two threads at once."""


def default_cache() -> Path:
    """Where wheelhouses are kept on this machine.

    Raises:
        DeployError: the home directory of this user is not known, and no other place named.
    """
    if not os.environ.get("XDG_CACHE_HOME") and not has_home():
        raise DeployError("what nodes import cannot be kept: the home directory of this user is not known.",
                          remedy="Set HOME, or XDG_CACHE_HOME to a directory that you may write to.")  # fmt: skip
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "raftbed", "wheels")


def node_requirements() -> list[str]:
    """The distributions that the nodes' code imports, pinned to the versions installed here.

    Imports that are guarded (uvloop, say) and not installed here are left out.
    """
    import raftbed.nodes

    modules: set[str] = set()
    for path in Path(raftbed.nodes.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Import):
                modules.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                modules.add(node.module.partition(".")[0])
    owners = importlib.metadata.packages_distributions()
    foreign = modules - set(sys.stdlib_module_names) - {"raftbed"}
    names = {owners[module][0] for module in foreign if module in owners}
    return sorted(f"{name}=={importlib.metadata.version(name)}" for name in names)


def make_wheelhouse(host: str, interpreter: Interpreter, cache: Path) -> tuple[str, Path]:
    """The packages for an interpreter as an archive in the cache: its hash and its path.

    Raises:
        DeployError: they cannot be had; names host, version and remedy.
    """
    try:
        with _MAKING:
            return _make_wheelhouse(host, interpreter, cache)
    except OSError as error:
        raise DeployError(
            f"the packages for it cannot be put into {cache}: {error}.",
            host=host,
            remedy="Make room there, or set XDG_CACHE_HOME to another directory of yours.",
        ) from error


def _make_wheelhouse(host: str, interpreter: Interpreter, cache: Path) -> tuple[str, Path]:
    requirements = node_requirements()
    wanted = json.dumps([requirements, interpreter.version[:2], interpreter.platforms, interpreter.runs_what_runs_here])
    key = hashlib.sha256(wanted.encode()).hexdigest()[:32]
    path = cache / f"{key}.tar.gz"
    if not path.is_file():
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            files = installed_packages(requirements) if interpreter.runs_what_runs_here else None
            if files is None:
                _download(host, interpreter, requirements, Path(scratch))
                files = _merge_wheels(sorted(Path(scratch).glob("*.whl")))
            bundle = make_archive(files)
            beside = Path(scratch, "made")
            beside.write_bytes(bundle.archive)
            beside.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest(), path


def installed_packages(requirements: list[str]) -> dict[str, bytes] | None:
    """What is installed here of `requirements` and of what they need, as it lies in site-packages.

    Returns:
        None where that cannot be told, as of packages that a Linux distribution has installed.
    """
    from packaging.requirements import Requirement

    files: dict[str, bytes] = {}
    waiting, seen = [Requirement(text) for text in requirements], set[str]()
    while waiting:
        name = waiting.pop().name.lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            return None
        if not distribution.files:
            return None
        for path in distribution.files:
            if path.parts[0] != ".." and "__pycache__" not in path.parts and path.name != "direct_url.json":
                files[path.as_posix()] = Path(str(path.locate())).read_bytes()
        needed = [Requirement(text) for text in distribution.requires or ()]
        waiting += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return files


def _download(host: str, interpreter: Interpreter, requirements: list[str], destination: Path) -> None:
    if not requirements:
        return
    version = f"{interpreter.version[0]}.{interpreter.version[1]}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--only-binary=:all:", "--dest", str(destination), "--python-version", version]
    command += ["--implementation", "cp", "--abi", f"cp{version.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    for platform in [*interpreter.platforms, "any"]:
        command += ["--platform", platform]
    failure = f"no wheelhouse for Python {version} on {interpreter.machine} ({interpreter.libc}) could be made"
    try:
        done = subprocess.run(
            [*command, *requirements], capture_output=True, text=True, timeout=_DOWNLOAD_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeployError(f"{failure}: {error}", host=host, remedy="Is the package index reachable?") from error
    if done.returncode != 0:
        said = " ".join(done.stderr.split())[-600:]
        pip_is_missing = "No module named pip" in done.stderr
        raise DeployError(
            f"{failure}: {said}",
            host=host,
            remedy="Install pip here: python -m ensurepip"
            if pip_is_missing
            else "Is the package index reachable, and does it have wheels for that Python? "
            f"Give the host the same Python as here ({sys.version_info[0]}.{sys.version_info[1]}) otherwise.",
        )


def _merge_wheels(wheels: list[Path]) -> dict[str, bytes]:
    """What installing `wheels` would put into site-packages; scripts, headers and data files are left out."""
    files: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as content:
            for name in content.namelist():
                parts = name.split("/")
                if parts[0].endswith(".data"):
                    if len(parts) < 3 or parts[1] not in {"purelib", "platlib"}:
                        continue
                    parts = parts[2:]
                if name.endswith("/") or ".." in parts:
                    continue
                files["/".join(parts)] = content.read(name)
    return files


def clear_cache(cache: Path | None = None) -> None:
    """Remove all wheelhouses kept on this machine."""
    shutil.rmtree(cache or default_cache(), ignore_errors=True)
