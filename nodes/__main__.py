"""Run one node: ``python -m raftbed.nodes --config FILE``, or with everything on the command line (docs/node.md)."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from raftbed import __version__
from raftbed.nodes import operate
from raftbed.nodes.addresses import split
from raftbed.nodes.raft import Config, ConfigError

if TYPE_CHECKING:
    from raftbed.nodes.surroundings import Surroundings


class NodeSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a node needs to know; the content of its configuration file.

    Attributes:
        id: its name within the cluster.
        cluster: the cluster's name.
        listen: "host:port".
        peers: every node's id to "host:port", its own included.
        data: directory of its log, made when missing.
        trace: file for its trace, or None.
        pid_file: file for its process id and start time, or None.
        raft: fields of :class:`raftbed.nodes.raft.Config`.
        bug: name of the planted bug, for the status; None in any honest node.
    """

    id: str
    cluster: str
    listen: str
    peers: dict[str, str]
    data: str
    trace: str | None = None
    pid_file: str | None = None
    raft: dict[str, Any] = {}
    bug: str | None = None


class SettingsError(Exception):
    """The settings cannot work; one sentence."""


def parse(argv: Sequence[str]) -> NodeSettings:
    """Settings from the command line.

    Raises:
        SettingsError: something is missing or wrong; names it.
    """
    parser = argparse.ArgumentParser(
        prog="python -m raftbed.nodes",
        usage="%(prog)s --id ID --data DIR --peer ID=HOST:PORT... | --config FILE | COMMAND ...",
        description="Run one Raft node; or, with a command, operate one that runs, or its cluster.",
        epilog=f"commands (COMMAND --help says more):\n{operate.overview()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="all settings in one JSON file")
    parser.add_argument("--id", help="this node's name")
    parser.add_argument("--cluster", default="raftbed", help="the cluster's name (default: %(default)s)")
    parser.add_argument("--listen", metavar="HOST:PORT", help="default: its own --peer address")
    parser.add_argument(
        "--peer", action="append", default=[], metavar="ID=HOST:PORT", help="every node, itself included"
    )
    parser.add_argument("--data", metavar="DIR", help="where its log is kept")
    parser.add_argument("--trace", metavar="FILE", help="write a trace")
    parser.add_argument("--version", action="version", version=__version__)
    options, rest = parser.parse_known_args(argv)
    for word in rest:
        if word in operate.COMMANDS:
            raise SettingsError(f"{word}: a command comes first: python -m raftbed.nodes {word} ...")
    if rest and rest[0] == argv[0] and not rest[0].startswith("-"):
        raise SettingsError(f"{rest[0]}: no such command; there are: {', '.join(operate.COMMANDS)}.")
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.config is not None:
        try:
            settings = msgspec.json.decode(options.config.read_bytes(), type=NodeSettings)
        except OSError as error:
            raise SettingsError(f"{options.config}: cannot be read: {error.strerror}.") from error
        except msgspec.DecodeError as error:
            raise SettingsError(f"{options.config}: {error}.") from error
    else:
        peers: dict[str, str] = {}
        for peer in options.peer:
            name, sign, address = peer.partition("=")
            if not sign or not name:
                raise SettingsError(f"--peer {peer}: must look like n1=127.0.0.1:8401.")
            if name in peers:
                raise SettingsError(f"--peer {peer}: {name} is there already, with {peers[name]}.")
            peers[name] = address
        if not options.id or not options.data:
            raise SettingsError("--id and --data are needed (or --config).")
        settings = NodeSettings(
            id=options.id,
            cluster=options.cluster,
            listen=options.listen or peers.get(options.id, ""),
            peers=peers,
            data=options.data,
            trace=options.trace,
        )
    if settings.id not in settings.peers:
        raise SettingsError(f"{settings.id}: is not among the peers ({', '.join(settings.peers) or 'none'}).")
    for name, address in {**settings.peers, "listen": settings.listen}.items():
        split_address(name, address)
    at: dict[tuple[str, int], str] = {}
    for name, address in settings.peers.items():
        other = at.setdefault(split_address(name, address), name)
        if other != name:
            raise SettingsError(f"{other} and {name}: have one address, {address}; each node needs its own.")
    where = f"{options.config}: " if options.config is not None else ""
    if not settings.cluster:
        raise SettingsError(f"{where}cluster: must be a name that is not empty.")
    try:
        Config.from_mapping(settings.cluster, settings.raft)
    except ConfigError as error:
        raise SettingsError(f"{where}raft: {error}") from error
    return settings


def split_address(name: str, address: str) -> tuple[str, int]:
    """Host and port of "host:port".

    Raises:
        SettingsError: it is not that.
    """
    found = split(address)
    if found is None:
        raise SettingsError(f"{name}: {address!r} is not an address such as 127.0.0.1:8401 or [::1]:8401.")
    return found


async def run(settings: NodeSettings, surroundings: Surroundings | None = None) -> int:
    """Run the node until it is told to stop (SIGTERM, SIGINT) or its storage fails; returns the exit status.

    Parameters:
        settings: of the node.
        surroundings: what it runs in; the real ones, when not given.
    """
    from raftbed.nodes.admin import learner_of_addresses
    from raftbed.nodes.identity import Identity
    from raftbed.nodes.peers import PeerNetwork
    from raftbed.nodes.raft import Raft
    from raftbed.nodes.server import Server
    from raftbed.nodes.state_machine import KeyValueStateMachine
    from raftbed.nodes.storage import StorageError
    from raftbed.nodes.surroundings import Surroundings

    log = logging.getLogger("raftbed.nodes")
    around = surroundings or Surroundings()
    config = Config.from_mapping(settings.cluster, settings.raft)
    host, port = split_address("listen", settings.listen)
    try:
        around.claim(Path(settings.data), Identity(cluster=settings.cluster, id=settings.id))
    except StorageError as error:
        log.critical("node %s stops: %s", settings.id, error)
        return 1
    try:
        tracer = around.trace(Path(settings.trace), settings.id) if settings.trace else None
    except OSError as error:
        log.error("cannot write the trace %s: %s", settings.trace, error.strerror)
        return 1
    machine = KeyValueStateMachine()
    network = PeerNetwork(settings.cluster, settings.peers, timeout=config.election_timeout_min / 1000)
    learn = learner_of_addresses(settings.peers)  # shared by all that look for an address
    storage = around.storage(Path(settings.data), machine)
    raft = Raft(
        settings.id, config, network, storage,
        clock=around.clock, random=around.random(), tracer=tracer, on_membership=learn, workers=around.worker,
        make_core=around.core,
    )  # fmt: skip
    server = Server(
        raft, machine, cluster=settings.cluster, peers=settings.peers, bug=settings.bug, problem=network.problem
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    closed = asyncio.ensure_future(raft.wait_closed())
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await server.listen(host, port)
        log.info("node %s of cluster %s listens on %s:%d", settings.id, settings.cluster, host, port)
        around.listens(raft)
        await asyncio.wait({closed, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if closed.done() and closed.exception() is not None:
            return 1  # the Raft has logged why
        log.info("node %s stops", settings.id)
        return 0
    except OSError as error:
        log.error("cannot listen on %s:%d: %s", host, port, error.strerror or error)
        return 1
    except Exception:
        log.exception("node %s stops", settings.id)
        return 1
    finally:
        stopping.cancel()
        await raft.shutdown()
        with contextlib.suppress(Exception):  # it was logged by the Raft
            await closed
        await server.close()
        await network.close()
        if tracer is not None:
            tracer.close(whole=closed.exception() is None)


def write_pid_file(path: Path) -> None:
    """Write "PID STARTTIME": the start time tells a stale file from a process that has the same id now."""
    with open("/proc/self/stat") as stat:
        start = stat.read().rpartition(")")[2].split()[19]
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(f"{os.getpid()} {start}\n")
    beside.replace(path)


def allow_many_files() -> None:
    """Have as many files open as the system allows: each connection is one, and so is a snapshot that comes in."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # a limit that cannot be raised is as it was
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed: the same, faster."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in operate.COMMANDS:
        return operate.main(arguments)
    try:
        settings = parse(arguments)
    except SettingsError as error:
        print(f"raftbed.nodes: {error}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    pid_file = Path(settings.pid_file) if settings.pid_file else None
    try:
        if pid_file is not None:
            write_pid_file(pid_file)
    except OSError as error:
        print(f"raftbed.nodes: {pid_file}: cannot be written: {error.strerror}.", file=sys.stderr)
        return 1
    allow_many_files()
    try:
        with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
            return runner.run(run(settings))
    finally:
        if pid_file is not None:
            pid_file.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
