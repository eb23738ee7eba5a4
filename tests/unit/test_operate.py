"""The operators' command line, on nodes that are processes: right answers, and exit codes a script can rely on."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from raftbed.nodes import operate
from raftbed.nodes.operate import DONE, REFUSED, UNKNOWN, USAGE, Reply, main

sys.path.append(str(Path(__file__).parent))
from test_server_process import PAUSE, Processes


class Cluster(Processes):
    """Nodes that know only themselves: whatever else they know, the membership told them."""

    def command(self, name: str) -> list[str]:
        command = [part for part in super().command(name) if not part.startswith("--peer=")]
        return [*command, f"--peer={name}={self.addresses[name]}"]

    async def operate(self, name: str, command: str, *arguments: str) -> int:
        """Exit status of an operator's command, put to a node."""
        return await asyncio.to_thread(main, [command, *arguments, "--node", self.addresses[name]])

    async def initialize(self) -> None:
        """Make n1 a cluster of its own."""
        await self.ask("n1", "POST", "/admin/initialize", {"members": ["n1"]})
        while (await self.ask("n1", "POST", "/kv/k/put", {"value": 1}))[0] != 200:
            await asyncio.sleep(PAUSE)

    def member(self, name: str) -> str:
        return f"{name}={self.addresses[name]}"


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with ClientSession() as client:
        cluster = Cluster(3, tmp_path, client)
        yield cluster
        cluster.stop_all()


async def test_a_cluster_grows_moves_and_shrinks(nodes, capsys):
    await nodes.start("n1", "n2", "n3")
    assert await nodes.operate("n1", "add-non-voter", nodes.member("n2")) == REFUSED
    assert "knows of none" in capsys.readouterr().err

    await nodes.initialize()
    assert await nodes.operate("n1", "snapshot") == DONE
    assert json.loads(capsys.readouterr().out)["index"] == 2

    assert await nodes.operate("n1", "add-non-voter", nodes.member("n2")) == DONE
    assert json.loads(capsys.readouterr().out)["non_voters"] == ["n2"]
    assert await nodes.operate("n1", "remove-non-voter", "n2") == DONE
    assert json.loads(capsys.readouterr().out)["non_voters"] == []
    assert await nodes.operate("n1", "remove-non-voter", "n2") == REFUSED
    assert await nodes.operate("n1", "add-non-voter", nodes.member("n2")) == DONE
    assert await nodes.operate("n2", "add-non-voter", nodes.member("n2")) == REFUSED
    assert "n1 leads; asking" in (said := capsys.readouterr().err)
    assert "n2 is a member or a non-voter already" in said

    members = ("n1", "n2", nodes.member("n3"))
    assert await nodes.operate("n1", "change-membership", *members) == DONE
    assert json.loads(capsys.readouterr().out)["members"] == ["n1", "n2", "n3"]
    assert await nodes.operate("n1", "change-membership", *members) == REFUSED

    assert await nodes.operate("n1", "transfer", "n9") == REFUSED
    assert "n9 is no voter" in capsys.readouterr().err
    assert await nodes.operate("n1", "transfer", "n2") == DONE
    capsys.readouterr()

    assert await nodes.leader() == "n2", "all know each other, though each was started with its own address only"
    assert await nodes.operate("n3", "status") == DONE
    assert json.loads(capsys.readouterr().out)["leader_address"] == nodes.addresses["n2"]
    nodes.kill("n3")
    await nodes.start("n3")
    await nodes.write("k", 2)
    assert await nodes.operate("n2", "change-membership", "n3", "n1") == DONE
    nodes.kill("n2")
    leads = await nodes.leader()
    assert leads in ("n1", "n3")
    capsys.readouterr()
    assert await nodes.operate(leads, "transfer") == DONE
    assert json.loads(capsys.readouterr().out)["leader"] == ({"n1", "n3"} - {leads}).pop()
    assert await nodes.read("k") == 2


async def test_new_nodes_are_made_a_cluster(nodes, capsys):
    await nodes.start("n1", "n2")
    assert await nodes.operate("n1", "initialize", "n1", "n9") == REFUSED
    assert "n9 has no address here" in capsys.readouterr().err
    assert await nodes.operate("n1", "initialize", "n1", nodes.member("n2")) == DONE
    assert json.loads(capsys.readouterr().out) == {"members": ["n1", "n2"]}
    await nodes.write("k", 1)
    assert await nodes.operate("n2", "initialize", nodes.member("n1"), "n2") == REFUSED
    assert "cannot be initialized" in capsys.readouterr().err


class ShortLogs(Cluster):
    """Nodes that take a snapshot every 20 entries, and keep 5 in the log."""

    def command(self, name: str) -> list[str]:
        settings = {
            "id": name,
            "cluster": "short",
            "listen": self.addresses[name],
            "peers": {name: self.addresses[name]},
            "data": str(self.place / name),
            "raft": {"snapshot_policy": 20, "trailing_logs": 5, "snapshot_max_chunk_size": 100},
        }
        path = self.place / f"{name}.json"
        path.write_text(json.dumps(settings))
        return [sys.executable, "-m", "raftbed.nodes", "--config", str(path)]


async def test_a_joiner_is_brought_up_by_a_snapshot_and_restarts_from_it(tmp_path):
    async with ClientSession() as client:
        nodes = ShortLogs(2, tmp_path, client)
        try:
            await nodes.start("n1", "n2")
            await nodes.initialize()
            body = {"value": 7, "client": "me", "serial": 1}
            await nodes.ask("n1", "POST", "/kv/session/put", body)
            for number in range(100):
                await nodes.ask("n1", "POST", f"/kv/k{number}/put", {"value": number})
            assert await nodes.operate("n1", "change-membership", "n1", nodes.member("n2")) == DONE
            status = await nodes.status("n2")
            assert status["snapshot_index"] >= 80, "the log of n1 does not reach back to the beginning"
            for name in ("n2", "n1"):
                nodes.kill(name)
                await nodes.start(name)
            assert await nodes.read("k50") == 50
            again = await nodes.ask(await nodes.leader(), "POST", "/kv/session/put", {**body, "value": 8})
            assert again[1]["value"] == 7, "the session is in the snapshot: answered, and not done again"
        finally:
            nodes.stop_all()


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["add-non-voter", "n4"], REFUSED, "n4: has no address here; give one."),
        (["add-non-voter", "n4=nowhere"], USAGE, "'nowhere' is not an address"),
        (["initialize", "n1", "n2=x:1", "n1"], USAGE, "n1: is named twice."),
        (["add-non-voter", "=x:1"], USAGE, "must look like"),
        (["change-membership", "n1", "n4="], USAGE, "must look like"),
        (["transfer"], REFUSED, "there is no other voter that answers"),
        (["elect"], DONE, ""),
        (["heartbeat"], DONE, ""),
        (["add-non-voter", "n4=127.0.0.1:1", "--timeout", "0.2"], UNKNOWN, "the change goes on"),
    ],
)
async def test_exit_codes(nodes, capsys, command, status, said):
    await nodes.start("n1")
    await nodes.initialize()
    assert await nodes.operate("n1", *command) == status
    assert said in capsys.readouterr().err


async def test_a_node_that_is_added_with_the_address_of_another_is_told_why_that_takes_long(nodes, capsys):
    await nodes.start("n1", "n2")
    await nodes.initialize()
    mistake = f"n3={nodes.addresses['n2']}"
    why = "This node is n2, not n3: check the peers' addresses."
    assert await nodes.operate("n1", "add-non-voter", mistake, "--timeout", "1") == UNKNOWN
    said = capsys.readouterr().err
    assert "n1 is not done yet; the change goes on. n3 cannot be reached: it answered 403 Forbidden, wrong-node" in said
    assert why in said
    assert why in (await nodes.status("n1"))["streams"]["n3"]["problem"]
    assert await nodes.operate("n1", "add-non-voter", nodes.member("n3"), "--timeout", "0.2") == UNKNOWN
    assert "n3 cannot be reached: nobody listens at its address." in capsys.readouterr().err
    await nodes.start("n3")
    while (stream := (await nodes.status("n1"))["streams"]["n3"])["problem"] is not None:
        await asyncio.sleep(PAUSE)
    assert stream.keys() == {"state", "match_index", "problem"}


async def test_a_node_that_cannot_be_reached(nodes, capsys):
    assert await nodes.operate("n1", "transfer") == REFUSED
    assert "Connection refused" in capsys.readouterr().err
    assert main(["status", "--node", "localhost:1"]) == REFUSED
    assert "Errno" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--node", "nonsense"], "--node nonsense: is not an address such as 127.0.0.1:8401."),
        (["--node", "127.0.0.1"], "--node 127.0.0.1: is not an address"),
        (["--node", "http://127.0.0.1:8401"], "--node http://127.0.0.1:8401: is not an address"),
        (["--node", "127.0.0.1:1", "--timeout", "0"], "--timeout 0: must be seconds"),
        (["--node", "127.0.0.1:1", "--timeout", "nan"], "--timeout nan: must be seconds"),
    ],
)
def test_a_wrong_command_line_asks_nobody(capsys, arguments, said):
    assert main(["status", *arguments]) == USAGE
    assert capsys.readouterr().err.startswith(f"raftbed.nodes: {said}")


def redirects(**leaders: str) -> Any:
    """Stands for `ask`: each node names another as the leader, the last one leads."""

    def ask(node: str, *_: Any) -> Reply:
        leader = leaders.get(node)
        if leader is None:
            return Reply(200, {"node": node})
        return Reply(421, {"leader": leader, "leader_address": leader, "message": f"{node}: no.", "definite": True})

    return ask


@pytest.mark.parametrize(
    ("leaders", "stay", "status", "asked"),
    [
        ({"a": "b", "b": "c", "c": "d"}, [], DONE, "bcd"),
        ({"a": "b", "b": "a"}, [], REFUSED, "b"),
        ({"a": "b", "b": "c", "c": "d", "d": "e", "e": "f", "f": "g"}, [], REFUSED, "bcde"),
        ({"a": "b"}, ["--stay"], REFUSED, ""),
    ],
    ids=["a few hops", "in a circle", "too many", "told to stay"],
)
def test_it_goes_on_to_the_leader(monkeypatch, capsys, leaders, stay, status, asked):
    there = {f"{name}:1": f"{leader}:1" for name, leader in leaders.items()}
    monkeypatch.setattr(operate, "ask", redirects(**there))
    assert main(["transfer", "--node", "a:1", *stay]) == status
    assert re.findall(r"(\w):1 leads; asking \1:1\.", capsys.readouterr().err) == list(asked)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", b"SSH-2.0-x\r\n", b""])
def test_something_else_that_listens_there_is_told(capsys, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert main(["snapshot", "--node", f"127.0.0.1:{listener.getsockname()[1]}"]) == UNKNOWN
        thread.join()
    assert re.search(
        r"does not answer as a node does|does not speak HTTP|closed connection without", capsys.readouterr().err
    )


async def test_sessions_over_http(nodes):
    await nodes.start("n1")
    await nodes.initialize()
    _, first = await nodes.ask("n1", "POST", "/sessions", {})
    _, second = await nodes.ask("n1", "POST", "/sessions", {})
    assert first["client"] != second["client"]
    body = {"value": 7, "client": first["client"], "serial": 1}
    assert (await nodes.ask("n1", "POST", "/kv/k/put", body))[0] == 200
    status, answer = await nodes.ask("n1", "POST", "/kv/k/put", {**body, "client": "session-99"})
    assert (status, answer["error"], answer["definite"]) == (409, "session-expired", False)


# -- recovery after a lost majority -----------------------------------------------------------------------------------


async def lost_majority(nodes: Cluster) -> str:
    """Three nodes, of which two are lost for good; the data of the one that is left."""
    await nodes.start("n1", "n2", "n3")
    await nodes.initialize()
    await nodes.operate("n1", "change-membership", "n1", nodes.member("n2"), nodes.member("n3"))
    await nodes.write("k", 7)
    for name in ("n2", "n3"):
        nodes.kill(name)
    return str(nodes.place / "n1")


async def test_recovery(nodes, capsys):
    data = await lost_majority(nodes)
    assert await asyncio.to_thread(main, ["recover", "--data", data, "--members", "n1", "--yes"]) == REFUSED
    assert "another process uses this directory" in capsys.readouterr().err
    nodes.kill("n1")

    assert main(["recover", "--data", data, "--members", "n1"]) == REFUSED
    said = capsys.readouterr()
    assert re.search(r"term \d+, last entry \d+ of term \d+, voters n1, n2, n3", said.out)
    assert "are lost" in said.err and "nothing was done; say --yes" in said.err

    assert main(["recover", "--data", data, "--members", "n1", "--yes"]) == DONE
    assert "the voters are n1" in capsys.readouterr().out
    await nodes.start("n1")
    assert await nodes.read("k") == 7
    await nodes.write("k", 8)


@pytest.mark.parametrize("command", [["--members", "n1"], ["--members", "n1", "--yes"], ["--members", "=", "--yes"]])
def test_recovery_of_nothing(tmp_path: Path, command: list[str], capsys: Any):
    assert main(["recover", "--data", str(tmp_path), *command]) in (REFUSED, USAGE)
    assert list(tmp_path.iterdir()) == []


MISTAKES = {
    "a name that nobody knows": (["n1", "n7"], "n7: not in the membership, which has n1, n2, n3. Start the recovered"),
    "a name instead of the node's": (["n2"], "n1, whose directory this is, must be one of the members"),
    "an address that is none": (["n1=bad"], "n1: 'bad' is not an address such as 127.0.0.1:8404."),
    "a name twice": (["n1", "n1"], "n1: is named twice."),
}


async def test_a_recovery_that_makes_no_sense_is_refused(nodes, capsys):
    data = await lost_majority(nodes)
    nodes.kill("n1")
    before = [path.read_bytes() for path in sorted(nodes.place.glob("n1/*.log"))]
    for members, said in MISTAKES.values():
        assert main(["recover", "--data", data, "--members", *members, "--yes"]) == USAGE
        assert f"raftbed.nodes: {data}: {said}" in capsys.readouterr().err
    assert main(["recover", "--data", data, "--members", "n7", "--yes", "--force"]) == USAGE, "nobody could start on it"
    kept = [path.read_bytes() for path in sorted(nodes.place.glob("n1/*.log"))]
    assert [text.rstrip(b"\0") for text in kept] == [text.rstrip(b"\0") for text in before]
    assert main(["recover", "--data", data, "--members", "n1", "n7=127.0.0.1:1", "--yes", "--force"]) == DONE
    assert "the voters are n1, n7" in capsys.readouterr().out


async def test_after_a_recovery_the_others_come_back_under_their_old_names_with_empty_directories(nodes):
    data = await lost_majority(nodes)
    nodes.kill("n1")
    assert main(["recover", "--data", data, "--members", "n1", "--yes"]) == DONE
    for name in ("n2", "n3"):
        shutil.rmtree(nodes.place / name)
    await nodes.start("n1")
    await nodes.write("k", 8)
    await nodes.start("n2", "n3")
    assert await nodes.operate("n1", "change-membership", "n1", nodes.member("n2"), nodes.member("n3")) == DONE
    nodes.kill("n1")
    assert await nodes.read("k") == 8
