"""Deployment: bring the code of the nodes to a host over SSH, once, verified by its hash.

A bundle holds :mod:`raftbed.nodes` (with a planted bug, also that bug's module) as a tar archive; it is named by its
SHA-256 and lies unpacked at ``<home>/bundle/<hash>/``. Hosts that share the controller's interpreter need no more.
Others get the packages that nodes import as a wheelhouse at ``<home>/wheels/<hash>/``, unpacked on the controller from
the wheels that fit the host's Python, machine and C library: a host needs neither pip nor a network.
"""

from __future__ import annotations

import ast
import asyncio
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raftbed.errors import CommandError, DeployError, UsageError
from raftbed.hosts.base import Host
from raftbed.hosts.parallel import in_parallel
from raftbed.hosts.processes import ProcessEvidence, process_alive, signal_process, start_detached

__all__ = [
    "Bundle",
    "Installation",
    "ProcessEvidence",
    "deploy",
    "deploy_all",
    "make_bundle",
    "process_alive",
    "signal_process",
    "start_detached",
]

OLDEST_PYTHON: Final = (3, 11)
_HASH_LENGTH: Final = 64
_TRANSFER_TIMEOUT: Final = 120.0
_DOWNLOAD_TIMEOUT: Final = 300.0

_UNPACK_SCRIPT: Final = """set -e
archive=$1 target=$2 expected=$3
trap 'rm -rf -- "$archive" "$target.part.$$"' EXIT
actual=$(sha256sum < "$archive")
[ "${actual%% *}" = "$expected" ] || { echo "the archive arrived damaged: SHA-256 ${actual%% *}" >&2; exit 1; }
mkdir -- "$target.part.$$"
tar -xzf "$archive" -C "$target.part.$$"
# Another controller may have been faster; what it unpacked has the same hash.
mv -T -- "$target.part.$$" "$target" 2>/dev/null || [ -d "$target" ]
"""

_INTERPRETER_SCRIPT: Final = """
import json, platform, sys, sysconfig
libc, version = platform.libc_ver()
if not libc and "musl" in (sysconfig.get_config_var("HOST_GNU_TYPE") or ""):
    libc, version = "musl", "1.2"
print(json.dumps([list(sys.version_info[:3]), platform.machine(), libc, version, sys.implementation.name]))
"""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An archive to be unpacked on hosts.

    Attributes:
        hash: SHA-256 of the archive, in hexadecimal; its name on the hosts.
        archive: the bytes of a gzip-compressed tar archive.
    """

    hash: str
    archive: bytes


@dataclass(frozen=True, slots=True)
class Installation:
    """What it takes to start a node on a host.

    Attributes:
        python: the first words of the command: the interpreter and its options.
        pythonpath: value of PYTHONPATH: the bundle, then the wheelhouse if there is one.
        directory: where the bundle is.
        was_present: the bundle was there already and nothing was pushed.
    """

    python: tuple[str, ...]
    pythonpath: str
    directory: str
    was_present: bool

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that the interpreter needs."""
        return {"PYTHONPATH": self.pythonpath}

    def command(self, module: str, *arguments: str) -> list[str]:
        """The command line that runs a module of the bundle."""
        return [*self.python, "-m", module, *arguments]


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
    def platforms(self) -> list[str]:
        """The platform tags of wheels that run here (PEP 600, PEP 656), best first."""
        major, minor = self.libc_version
        if self.libc == "musl":
            return [f"musllinux_{major}_{number}_{self.machine}" for number in range(minor, -1, -1)]
        tags = [f"manylinux_{major}_{number}_{self.machine}" for number in range(minor, 4, -1)]
        return [*tags, *(f"{old}_{self.machine}" for old in ("manylinux2014", "manylinux2010", "manylinux1"))]


def _archive(files: Mapping[str, bytes]) -> Bundle:
    """A tar archive that depends on names and contents only."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    archive = gzip.compress(raw.getvalue(), compresslevel=6, mtime=0)
    return Bundle(hashlib.sha256(archive).hexdigest(), archive)


def make_bundle(*, with_bug: str | None = None) -> Bundle:
    """The code of the nodes as it is now.

    Parameters:
        with_bug: name of a planted bug whose module goes along, or None.

    Raises:
        UsageError: there is no such bug.
    """
    import raftbed
    import raftbed.nodes

    files = {"raftbed/__init__.py": Path(raftbed.__file__).read_bytes()}
    nodes = Path(raftbed.nodes.__path__[0])
    for path in sorted(nodes.rglob("*")):
        relative = path.relative_to(nodes)
        if path.is_file() and "__pycache__" not in relative.parts and path.suffix != ".pyc":
            files[f"raftbed/nodes/{relative.as_posix()}"] = path.read_bytes()
    if with_bug is not None:
        files.update(_bug_files(with_bug))
    return _archive(files)


def _bug_files(bug: str) -> dict[str, bytes]:
    from raftbed import bugs

    folder = Path(bugs.__path__[0])
    if bug not in bugs.names():
        raise UsageError(f"there is no bug {bug!r}.", remedy="See: raftbed list bugs")
    module = folder / f"{bugs.module_name(bug)}.py"
    return {
        "raftbed/bugs/__init__.py": (folder / "__init__.py").read_bytes(),
        f"raftbed/bugs/{module.name}": module.read_bytes(),
    }


async def deploy(
    host: Host,
    *,
    with_bug: str | None = None,
    bundle: Bundle | None = None,
    wheelhouse: bool | None = None,
    cache: Path | None = None,
) -> Installation:
    """Bring the nodes' code to a host, unless it is there.

    Parameters:
        host: where.
        with_bug: name of a planted bug to take along.
        bundle: made by `make_bundle` before, to save making it for each host.
        wheelhouse: push the packages that nodes import; None does so where the host does not share the interpreter.
        cache: where wheelhouses are kept on this machine; by default ``raftbed`` in the user's cache directory.

    Raises:
        DeployError: names the host, what is wrong and the remedy.
        HostError: the host cannot be reached.
    """
    made = bundle or make_bundle(with_bug=with_bug)
    directory, was_present = await _unpack(host, "bundle", made.hash, lambda: made.archive)
    # "-P": what lies in the node's working directory is data, not modules.
    if not (wheelhouse if wheelhouse is not None else not host.shares_interpreter):
        return Installation((host.python, "-P"), directory, directory, was_present)
    python = host.python or "python3"
    interpreter = await _examine(host, python)
    packages = await asyncio.to_thread(_wheelhouse, host.name, interpreter, cache or _default_cache())
    name, content = packages
    wheels, _ = await _unpack(host, "wheels", name, content.read_bytes)
    # "-s": packages in the home directory of the host's user are not ours.
    return Installation((python, "-P", "-s"), f"{directory}:{wheels}", directory, was_present)


async def deploy_all(
    hosts: Iterable[Host], *, with_bug: str | None = None, wheelhouse: bool | None = None, cache: Path | None = None
) -> dict[str, Installation]:
    """`deploy` to several hosts at once; the installations by name of host. The first error ends it."""
    listed = list(hosts)
    bundle = make_bundle(with_bug=with_bug)
    made = await in_parallel(deploy(host, bundle=bundle, wheelhouse=wheelhouse, cache=cache) for host in listed)
    return {host.name: installation for host, installation in zip(listed, made, strict=True)}


async def _unpack(host: Host, kind: str, name: str, content: Callable[[], bytes]) -> tuple[str, bool]:
    """Have an archive unpacked at ``<home>/<kind>/<name>``; that path, and whether it was there already."""
    assert len(name) == _HASH_LENGTH
    target = f"{host.home}/{kind}/{name}"
    # A directory of that name was renamed into place after its archive had been verified.
    present = await host.run(["test", "-d", target], check=False)
    if present.status == 0:
        return target, True
    archive = f"{target}.{os.urandom(4).hex()}.tar.gz"
    try:
        await host.put(content(), archive, mode=0o600, timeout=_TRANSFER_TIMEOUT)
        unpack = ["/bin/sh", "-c", _UNPACK_SCRIPT, "unpack", archive, target, name]
        await host.run(unpack, timeout=_TRANSFER_TIMEOUT)
    except CommandError as error:
        raise DeployError(
            f"the {kind} could not be unpacked: {error.stderr.strip() or error.message}",
            host=host.name,
            remedy=f"Is there space below {host.home}, and are tar, gzip and sha256sum installed?",
        ) from error
    return target, False


# -- wheelhouse -----------------------------------------------------------------------------------------------------


async def _examine(host: Host, python: str) -> Interpreter:
    install = "Install Python 3.11 or later on it: apt-get install python3"
    asked = await host.run([python, "-c", _INTERPRETER_SCRIPT], check=False, timeout=20.0)
    if asked.status != 0:
        raise DeployError(f"it has no usable {python}: {asked.stderr.strip()[-300:]}", host=host.name, remedy=install)
    try:
        version, machine, libc, libc_version, implementation = json.loads(asked.stdout)
        major, minor = [*libc_version.split("."), "0"][:2]
        found = Interpreter(tuple(version), machine, libc or "glibc", (int(major), int(minor)))
    except ValueError as error:
        raise DeployError(f"{python} gave an unexpected answer: {asked.stdout[:200]!r}.", host=host.name) from error
    shown = ".".join(map(str, found.version))
    if found.version < OLDEST_PYTHON or implementation != "cpython":
        raise DeployError(f"its {python} is {implementation} {shown}; nodes need CPython 3.11 or later.",
                          host=host.name, remedy=install)  # fmt: skip
    return found


_MAKING_WHEELS: Final = threading.Lock()
"""Hosts that are alike need one wheelhouse, not one each; and ast.parse of Python 3.11 fails in two threads at once."""


def _default_cache() -> Path:
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


def _wheelhouse(host: str, interpreter: Interpreter, cache: Path) -> tuple[str, Path]:
    """The packages for an interpreter as an archive in the cache: its hash and its path."""
    with _MAKING_WHEELS:
        return _make_wheelhouse(host, interpreter, cache)


def _make_wheelhouse(host: str, interpreter: Interpreter, cache: Path) -> tuple[str, Path]:
    requirements = node_requirements()
    wanted = json.dumps([requirements, interpreter.version[:2], interpreter.platforms])
    key = hashlib.sha256(wanted.encode()).hexdigest()[:32]
    path = cache / f"{key}.tar.gz"
    if not path.is_file():
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _download(host, interpreter, requirements, Path(scratch))
            bundle = _archive(_merge_wheels(sorted(Path(scratch).glob("*.whl"))))
            beside = Path(scratch, "made")
            beside.write_bytes(bundle.archive)
            beside.replace(path)
    return hashlib.sha256(path.read_bytes()).hexdigest(), path


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
    shutil.rmtree(cache or _default_cache(), ignore_errors=True)
