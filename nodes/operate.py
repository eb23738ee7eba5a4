"""The operators' command line: ``python -m raftbed.nodes status --node HOST:PORT`` and its siblings (docs/node.md).

Exit status: 0 done; 1 refused, or the node could not be reached: certainly not done; 2 the command line is wrong; 3
nobody knows, because the node did not say in time.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raftbed.nodes.addresses import split

DONE, REFUSED, USAGE, UNKNOWN = 0, 1, 2, 3
COMMANDS: Mapping[str, str] = {
    "status": "Show what the node is and knows, as JSON.",
    "initialize": "Make new nodes a cluster, once for all of its life; the node that is asked is one of them.",
    "add-non-voter": "Have a node sent the log; returns when it is at line rate.",
    "remove-non-voter": "Send a node that is no voter the log no more.",
    "change-membership": "Make these nodes the voters, by joint consensus.",
    "transfer": "Hand the leadership over.",
    "snapshot": "Have the node take a snapshot now.",
    "elect": "Have the node stand for election now.",
    "heartbeat": "Have the node, if it leads, let its peers hear from it now.",
    "recover": "Rewrite the membership offline, after a majority was lost for good.",
}
"""First words of a command line that is an operator's, and not a node's, with what each does."""
_MOST_HOPS = 4
"""How often one goes on to another leader: each knows of a newer one than the last, unless they are being elected."""
_TIMEOUT_HEADER = "X-Raftbed-Timeout"
_RECOVERY_WARNING = """\
This rewrites the membership of {data} for good, so that {members} can go on without the nodes that are lost.
Writes that were acknowledged and are only on those nodes are lost.
If any of the others still runs, or ever runs again, with its old data, there are two clusters with one name.
Do it on one node only, the one with the longest log of the latest term (`recover` without --yes shows it); remove the
data of all others, start this one, and add the others anew."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a node answered.

    Attributes:
        status: of HTTP; 0 when there was no answer.
        content: of the answer.
    """

    status: int
    content: Mapping[str, Any]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m raftbed.nodes", description="Operate a node, or its cluster.")
    commands = top.add_subparsers(dest="command", required=True)
    asked: dict[str, argparse.ArgumentParser] = {}
    for name, help in COMMANDS.items():
        sub = commands.add_parser(name, help=help, description=help)
        if name == "recover":
            _add_recovery(sub)
            continue
        sub.add_argument("--node", required=True, metavar="HOST:PORT", help="which node to ask")
        sub.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="default: %(default)g")
        sub.add_argument("--stay", action="store_true", help="do not go on to the leader when the node names it")
        asked[name] = sub
    for name in ("initialize", "change-membership"):
        asked[name].add_argument("members", nargs="+", metavar="ID[=HOST:PORT]", help="all that are to be voters")
    asked["add-non-voter"].add_argument("member", metavar="ID=HOST:PORT")
    asked["remove-non-voter"].add_argument("member", metavar="ID")
    asked["transfer"].add_argument("target", nargs="?", metavar="ID", help="default: the node that is best prepared")
    for name in ("initialize", "snapshot", "elect", "heartbeat"):
        asked[name].set_defaults(stay=True)
    return top


def _add_recovery(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", required=True, type=Path, metavar="DIR", help="of a node that does not run")
    sub.add_argument("--members", required=True, nargs="+", metavar="ID[=HOST:PORT]")
    sub.add_argument("--yes", action="store_true", help="do it; otherwise it is only said what would be done")
    sub.add_argument("--force", action="store_true", help="take members that the membership in the log does not have")


def overview() -> str:
    """The commands, a line each, for the help of the module."""
    width = max(map(len, COMMANDS))
    return "\n".join(f"  {name:{width}}  {help}" for name, help in COMMANDS.items())


def main(argv: Sequence[str]) -> int:
    """Do one command; returns the exit status."""
    options = parser().parse_args(argv)
    if options.command == "recover":
        return recover(options.data, options.members, confirmed=options.yes, force=options.force)
    try:
        if split(options.node) is None:
            raise ValueError(f"--node {options.node}: is not an address such as 127.0.0.1:8401.")
        if not 0 < options.timeout <= 3600:
            raise ValueError(f"--timeout {options.timeout:g}: must be seconds, more than 0 and at most 3600.")
        path, body = _request(options)
    except ValueError as error:
        print(f"raftbed.nodes: {error}", file=sys.stderr)
        return USAGE
    reply = _ask_leader(options.node, path, body, options.timeout, stay=options.stay)
    if reply.status == 200:
        print(json.dumps(reply.content, indent=2))
        return DONE
    print(f"raftbed.nodes: {reply.content.get('message', 'no answer')}", file=sys.stderr)
    return REFUSED if reply.content.get("definite") else UNKNOWN


def _request(options: argparse.Namespace) -> tuple[str, dict[str, Any] | None]:
    """Path and body of what a command asks; no body: a GET.

    Raises:
        ValueError: what was given cannot be.
    """
    make: Mapping[str, Callable[[], tuple[str, dict[str, Any] | None]]] = {
        "status": lambda: ("/status", None),
        "add-non-voter": lambda: ("/admin/add_non_voter", _member(options.member)),
        "remove-non-voter": lambda: ("/admin/remove_non_voter", {"id": options.member}),
        "initialize": lambda: ("/admin/initialize", _members(options.members)),
        "change-membership": lambda: ("/admin/change_membership", _members(options.members)),
        "transfer": lambda: ("/admin/transfer", {"target": options.target}),
        "snapshot": lambda: ("/admin/snapshot", {}),
        "elect": lambda: ("/admin/elect", {}),
        "heartbeat": lambda: ("/admin/heartbeat", {}),
    }
    return make[options.command]()


def _member(text: str) -> dict[str, Any]:
    node, sign, address = text.partition("=")
    if not node or (sign and not address):
        raise ValueError(f"{text}: must look like n4=127.0.0.1:8404.")
    if sign and split(address) is None:
        raise ValueError(f"{node}: {address!r} is not an address such as 127.0.0.1:8404.")
    return {"id": node, "address": address or None}


def _members(texts: Sequence[str]) -> dict[str, Any]:
    members = [_member(text) for text in texts]
    names = [member["id"] for member in members]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name}: is named twice.")
    addresses = {member["id"]: member["address"] for member in members if member["address"]}
    return {"members": names, "addresses": addresses}


def _ask_leader(node: str, path: str, body: Mapping[str, Any] | None, timeout: float, *, stay: bool) -> Reply:
    """Ask a node, and then whom it says to lead, who may know of a newer leader."""
    asked: list[str] = []
    while True:
        asked.append(node)
        reply = ask(node, path, body, timeout)
        leader = reply.content.get("leader_address")
        if reply.status != 421 or not leader or stay or leader in asked or len(asked) > _MOST_HOPS:
            return reply
        print(f"raftbed.nodes: {reply.content.get('leader')} leads; asking {leader}.", file=sys.stderr)
        node = leader


def ask(node: str, path: str, body: Mapping[str, Any] | None, timeout: float) -> Reply:
    """Ask a node at an address; what goes wrong is part of the reply."""
    address = split(node)
    if address is None:
        return Reply(0, {"message": f"{node}: is not an address such as 127.0.0.1:8401.", "definite": True})
    connection = http.client.HTTPConnection(*address, timeout=timeout + 1)
    sent = False
    try:
        connection.connect()
        sent = True
        headers = {_TIMEOUT_HEADER: f"{timeout:g}", "Content-Type": "application/json"}
        if body is None:
            connection.request("GET", path, headers=headers)
        else:
            connection.request("POST", path, json.dumps(body), headers)
        response = connection.getresponse()
        content = response.read()
    except OSError as error:
        said = error.strerror or str(error) or type(error).__name__
        return Reply(0, {"message": f"{node}: {said}.", "definite": not sent})
    except http.client.HTTPException:
        return Reply(0, {"message": f"{node}: does not speak HTTP, or broke off.", "definite": False})
    finally:
        connection.close()
    try:
        decoded = json.loads(content)
    except ValueError:
        decoded = None
    if not isinstance(decoded, dict):
        return Reply(0, {"message": f"{node}: does not answer as a node does; is that its address?", "definite": False})
    return Reply(response.status, decoded)


def recover(data: Path, members: Sequence[str], *, confirmed: bool, force: bool) -> int:
    """Rewrite the membership of a node that does not run; returns the exit status."""
    from raftbed.nodes.recovery import append_membership, inspect
    from raftbed.nodes.storage import StorageError

    try:
        wanted = _members(members)
        if not list(data.glob("*.log")):
            print(f"raftbed.nodes: {data}: holds no node's data.", file=sys.stderr)
            return REFUSED
        found = inspect(data)
        print(f"{data}: {found}")
        found.check(wanted["members"], force=force)
        print(_RECOVERY_WARNING.format(data=data, members=", ".join(wanted["members"])), file=sys.stderr)
        if not confirmed:
            print("raftbed.nodes: nothing was done; say --yes to do it.", file=sys.stderr)
            return REFUSED
        print(append_membership(data, wanted["members"], wanted["addresses"], force=force))
    except ValueError as error:
        print(f"raftbed.nodes: {data}: {error}", file=sys.stderr)
        return USAGE
    except (StorageError, OSError) as error:
        print(f"raftbed.nodes: {error}", file=sys.stderr)
        return REFUSED
    return DONE
