"""Deployment: bring the code of the nodes to a host over SSH, once, verified by its hash.

A bundle holds :mod:`raftbed.nodes` (with a planted bug, also that bug's module) as a tar archive; it is named by its
SHA-256 and lies unpacked at ``<home>/bundle/<hash>/``. Hosts that share the controller's interpreter need no more.
Others get the packages that nodes import as a wheelhouse at ``<home>/wheels/<hash>/``, unpacked on the controller from
the wheels that fit the host's Python, machine and C library: a host needs neither pip nor a network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raftbed.archive import Bundle, make_archive
from raftbed.errors import CommandError, DeployError, UsageError
from raftbed.hosts.base import Host
from raftbed.hosts.parallel import in_parallel
from raftbed.hosts.processes import ProcessEvidence, process_alive, signal_process, start_detached
from raftbed.wheelhouse import default_cache, examine, make_wheelhouse

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

_HASH_LENGTH: Final = 64
_TRANSFER_TIMEOUT: Final = 120.0

# The archive comes by standard input, so that pushing and unpacking are one round trip.
_UNPACK_SCRIPT: Final = """set -e
target=$1 expected=$2
archive=$target.$$.tar.gz part=$target.$$.part
umask 077
mkdir -p -- "${target%/*}"
trap 'rm -rf -- "$archive" "$part"' EXIT
cat > "$archive"
actual=$(sha256sum < "$archive")
[ "${actual%% *}" = "$expected" ] || { echo "the archive arrived damaged: SHA-256 ${actual%% *}" >&2; exit 1; }
umask 022
mkdir -- "$part"
tar -xzf "$archive" -C "$part"
# Another controller may have been faster; what it unpacked has the same hash.
mv -T -- "$part" "$target" 2>/dev/null || [ -d "$target" ]
"""


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
    return make_archive(files)


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
    # "-P": what lies in the node's working directory is data, not modules.
    if not (wheelhouse if wheelhouse is not None else not host.shares_interpreter):
        directory, was_present = await _unpack(host, "bundle", made.hash, lambda: made.archive)
        return Installation((host.python, "-P"), directory, directory, was_present)
    python = host.python or "python3"

    async def packages() -> tuple[str, bool]:
        interpreter = await examine(host, python)
        name, content = await asyncio.to_thread(make_wheelhouse, host.name, interpreter, cache or default_cache())
        return await _unpack(host, "wheels", name, content.read_bytes)

    async def code() -> tuple[str, bool]:
        return await _unpack(host, "bundle", made.hash, lambda: made.archive)

    # Side by side: each waits mostly for the way to the host and back.
    (directory, was_present), (wheels, _) = await in_parallel([code(), packages()])
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
    try:
        unpack = ["/bin/sh", "-c", _UNPACK_SCRIPT, "unpack", target, name]
        await host.run(unpack, stdin=content(), timeout=_TRANSFER_TIMEOUT)
    except CommandError as error:
        raise DeployError(
            f"the {kind} could not be unpacked: {error.stderr.strip() or error.message}",
            host=host.name,
            remedy=f"Is there space below {host.home}, and are tar, gzip and sha256sum installed?",
        ) from error
    return target, False
