"""`python -m raftbed.nodes` as an operator runs it, on loopback: one node and three, SIGKILL, SIGTERM, mistakes."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from aiohttp import ClientConnectionError, ClientSession

from raftbed.nodes.__main__ import main
from raftbed.nodes.operate import COMMANDS

HOST = "127.0.0.1"
PAUSE = 0.02
"""Between two looks at a condition, so that the nodes get the processor."""


def free_addresses(count: int) -> list[str]:
    """Addresses that nobody listens on; all are taken at once, so that they differ."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    addresses = [f"{HOST}:{taken.getsockname()[1]}" for taken in sockets]
    for taken in sockets:
        taken.close()
    return addresses


class Processes:
    """Nodes n1 to nN as processes of their own; what each says goes to NAME.log in `place`.

    Parameters:
        size: how many.
        place: a directory for their data.
        client: asks them.
    """

    def __init__(self, size: int, place: Path, client: ClientSession) -> None:
        names = [f"n{number}" for number in range(1, size + 1)]
        self.addresses = dict(zip(names, free_addresses(size), strict=True))
        self.place = place
        self.client = client
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def command(self, name: str) -> list[str]:
        peers = [f"--peer={peer}={address}" for peer, address in self.addresses.items()]
        data = str(self.place / name)
        return [sys.executable, "-m", "raftbed.nodes", "--id", name, "--data", data, *peers]

    def log(self, name: str) -> str:
        return (self.place / f"{name}.log").read_text()

    def spawn(self, name: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.command(name), stderr=log, cwd=self.place)

    async def start(self, *names: str) -> None:
        """Start nodes and wait until they answer."""
        for name in names:
            with (self.place / f"{name}.log").open("ab") as log:
                self.running[name] = await asyncio.to_thread(self.spawn, name, log)
        for name in names:
            while await self.status(name) is None:
                assert self.running[name].poll() is None, self.log(name)
                await asyncio.sleep(PAUSE)

    def kill(self, name: str) -> None:
        self.running[name].kill()
        assert self.running.pop(name).wait() == -signal.SIGKILL

    def stop_all(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    async def ask(self, name: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        url = f"http://{self.addresses[name]}{path}"
        async with self.client.request(method, url, json=body) as response:
            return response.status, await response.json()

    async def status(self, name: str) -> Any:
        try:
            return (await self.ask(name, "GET", "/status"))[1]
        except ClientConnectionError:
            return None

    async def leader(self) -> str:
        """The leader, once everyone who runs follows it."""
        while True:
            seen = [await self.status(name) for name in self.running]
            leaders = {status["leader"] for status in seen}
            leader = leaders.pop()
            if leader in self.running and not leaders:
                return leader
            await asyncio.sleep(PAUSE)

    async def write(self, key: str, value: Any) -> None:
        """Through the leader, however often that takes; once, by its session."""
        while True:
            body = {"value": value, "client": "test", "serial": value}
            status, answer = await self.ask(await self.leader(), "POST", f"/kv/{key}/put", body)
            if status == 200:
                return
            assert status in (421, 503), answer
            await asyncio.sleep(PAUSE)

    async def read(self, key: str) -> Any:
        while True:
            status, answer = await self.ask(await self.leader(), "GET", f"/kv/{key}")
            if status == 200:
                return answer["value"]
            assert status in (421, 503), answer
            await asyncio.sleep(PAUSE)


@pytest.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


@pytest.fixture
def one(tmp_path: Path, client: ClientSession) -> Iterator[Processes]:
    nodes = Processes(1, tmp_path, client)
    yield nodes
    nodes.stop_all()


@pytest.fixture
def three(tmp_path: Path, client: ClientSession) -> Iterator[Processes]:
    nodes = Processes(3, tmp_path, client)
    yield nodes
    nodes.stop_all()


async def test_one_node_is_killed_and_comes_back_with_its_data(one):
    await one.start("n1")
    assert await one.ask("n1", "POST", "/admin/initialize", {"members": ["n1"]}) == (200, {"members": ["n1"]})
    for value in range(1, 11):
        await one.write("k", value)
    one.kill("n1")
    await one.start("n1")
    assert await one.read("k") == 10
    assert "Traceback" not in one.log("n1")


async def test_it_may_open_as_many_files_as_the_system_allows(one, monkeypatch):
    """Each connection is one, also a stranger's; the soft limit is often 1024."""
    command = one.command("n1")
    monkeypatch.setattr(one, "command", lambda _: ["sh", "-c", 'ulimit -S -n 64; exec "$@"', "sh", *command])
    await one.start("n1")
    soft, hard = resource.prlimit(one.running["n1"].pid, resource.RLIMIT_NOFILE)
    assert soft == hard != 64


async def test_of_three_nodes_the_leader_is_killed_and_then_all(three):
    await three.start("n1", "n2", "n3")
    await three.ask("n2", "POST", "/admin/initialize", {"members": ["n1", "n2", "n3"]})
    await three.write("k", 1)
    victim = await three.leader()
    three.kill(victim)
    assert await three.read("k") == 1, "two of three are enough"
    await three.write("k", 2)
    await three.start(victim)
    await three.leader()
    for name in list(three.running):
        three.kill(name)
    await three.start("n1", "n2", "n3")
    assert await three.read("k") == 2
    for name in three.addresses:
        assert "Traceback" not in three.log(name)


async def test_it_ends_cleanly_when_it_is_told_to(one):
    for number in (signal.SIGTERM, signal.SIGINT):
        await one.start("n1")
        process = one.running.pop("n1")
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait) == 0
    lines = one.log("n1").splitlines()
    assert [line.split("raftbed.nodes: ")[1] for line in lines] == 2 * [
        f"node n1 of cluster raftbed listens on {one.addresses['n1']}",
        "node n1 stops",
    ]


async def test_a_file_can_say_everything(one):
    settings = {
        "id": "n1",
        "cluster": "from-a-file",
        "listen": one.addresses["n1"],
        "peers": one.addresses,
        "data": str(one.place / "data"),
        "trace": str(one.place / "trace.jsonl"),
        "pid_file": str(one.place / "pid"),
        "raft": {"election_timeout_min": 200, "election_timeout_max": 400},
    }
    (one.place / "n1.json").write_text(json.dumps(settings))
    one.command = lambda name: [sys.executable, "-m", "raftbed.nodes", "--config", str(one.place / "n1.json")]
    await one.start("n1")
    assert (await one.status("n1"))["cluster"] == "from-a-file"
    assert (one.place / "pid").read_text().split()[0] == str(one.running["n1"].pid)
    await one.ask("n1", "POST", "/admin/initialize", {"members": ["n1"]})
    await one.write("k", 1)
    one.running["n1"].terminate()
    assert await asyncio.to_thread(one.running.pop("n1").wait) == 0
    assert not (one.place / "pid").exists()
    trace = [json.loads(line) for line in (one.place / "trace.jsonl").read_text().splitlines()]
    assert [record["event"] for record in trace[:2]] == ["process", "boot"]
    assert {"vote", "role", "append", "durable", "commit", "apply"} <= {record["event"] for record in trace}
    assert all(record["node"] == "n1" for record in trace)


# -- mistakes ---------------------------------------------------------------------------------------------------------

FILE: dict[str, Any] = {"id": "n1", "cluster": "c", "listen": f"{HOST}:1", "peers": {"n1": f"{HOST}:1"}, "data": "d"}


def ended(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "raftbed.nodes", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--id and --data are needed (or --config)."),
        (["--id=n1", "--data=d"], "n1: is not among the peers (none)."),
        (["--id=n1", "--data=d", f"--peer=n2={HOST}:1"], "n1: is not among the peers (n2)."),
        (["--id=n1", "--data=d", "--peer=n1"], "--peer n1: must look like n1=127.0.0.1:8401."),
        (["--id=n1", "--data=d", "--peer=n1=x"], "n1: 'x' is not an address such as 127.0.0.1:8401 or [::1]:8401."),
        (["--id=n1", "--data=d", "--peer=n1=x:0"], "n1: 'x:0' is not an address such as 127.0.0.1:8401 or [::1]:8401."),
        (
            ["--id=n1", "--data=d", f"--peer=n1={HOST}:1", f"--peer=n1={HOST}:2"],
            f"--peer n1={HOST}:2: n1 is there already, with {HOST}:1.",
        ),
        (
            ["--id=n1", "--data=d", f"--peer=n1={HOST}:1", f"--peer=n2={HOST}:1"],
            f"n1 and n2: have one address, {HOST}:1; each node needs its own.",
        ),
        (["bogus"], f"bogus: no such command; there are: {', '.join(COMMANDS)}."),
        (["--node=x:1", "status"], "status: a command comes first: python -m raftbed.nodes status ..."),
        (["--config=none.json"], "none.json: cannot be read: No such file or directory."),
    ],
)
def test_a_wrong_command_line_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"raftbed.nodes: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_every_command_of_operators(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    help = capsys.readouterr().out
    for name, what in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(what)}$", help, re.MULTILINE)


def test_a_wrong_command_line_ends_the_process(tmp_path):
    process = ended("--id=n1", cwd=tmp_path)
    assert (process.returncode, process.stderr) == (2, "raftbed.nodes: --id and --data are needed (or --config).\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "n.json: Input data was truncated."),
        (json.dumps({"id": "n1"}), "n.json: Object missing required field `cluster`."),
        (json.dumps({**FILE, "ports": 1}), "n.json: Object contains unknown field `ports`."),
        (json.dumps({**FILE, "cluster": ""}), "n.json: cluster: must be a name that is not empty."),
        (
            json.dumps({**FILE, "raft": {"heartbeat_interval": 0}}),
            "n.json: raft: heartbeat_interval: must be a whole number of at ",
        ),
        (
            json.dumps({**FILE, "raft": {"hartbeat": 1}}),
            "n.json: raft: hartbeat: no such option; there are: election_timeout_min, ",
        ),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, monkeypatch, capsys, content, message):
    monkeypatch.chdir(tmp_path)
    Path("n.json").write_text(content)
    assert main(["--config=n.json"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"raftbed.nodes: {message}")
    assert said.count("\n") == 1


def test_what_it_cannot_do_is_one_line(tmp_path):
    """An address that is taken, data that is in use or no directory, files that cannot be written."""
    with socket.create_server((HOST, 0)) as taken:
        peer = f"--peer=n1={HOST}:{taken.getsockname()[1]}"
        process = ended("--id=n1", "--data=d", peer, cwd=tmp_path)
        assert process.returncode == 1
        assert re.search(r"ERROR raftbed.nodes: cannot listen on 127\.0\.0\.1:\d+: .*in use", process.stderr)
    peer = f"--peer=n1={free_addresses(1)[0]}"
    (tmp_path / "file").write_text("")
    process = ended("--id=n1", "--data=file", peer, cwd=tmp_path)
    assert process.returncode == 1
    assert (
        "CRITICAL raftbed.nodes: node n1 stops: file: the log cannot be opened: [Errno 20] Not a directory"
        in process.stderr
    )
    assert process.stderr.count("node n1 stops") == 1
    process = ended("--id=n1", "--data=d", peer, "--trace=none/trace", cwd=tmp_path)
    assert process.returncode == 1
    assert process.stderr.endswith("cannot write the trace none/trace: No such file or directory\n")
    (tmp_path / "n.json").write_text(json.dumps({**FILE, "pid_file": "none/pid"}))
    process = ended("--config=n.json", cwd=tmp_path)
    assert (process.returncode, process.stderr) == (
        1,
        "raftbed.nodes: none/pid: cannot be written: No such file or directory.\n",
    )
    assert "Traceback" not in process.stderr


async def test_two_processes_on_one_directory_are_refused(one):
    await one.start("n1")
    other = one.command("n1")[3:]
    other[other.index(f"--peer=n1={one.addresses['n1']}")] = f"--peer=n1={free_addresses(1)[0]}"
    process = await asyncio.to_thread(ended, *other, cwd=one.place)
    assert process.returncode == 1
    assert f"CRITICAL raftbed.nodes: node n1 stops: {one.place / 'n1'}: another process uses this dir" in process.stderr
    assert await one.status("n1") is not None, "the first one does not notice"


async def test_the_directory_of_another_node_is_refused(one):
    await one.start("n1")
    one.kill("n1")
    for mistake, named in (("--id=n9", "node n9 of cluster 'raftbed'"), ("--cluster=x", "node n1 of cluster 'x'")):
        given = [*one.command("n1")[3:], f"--peer=n9={free_addresses(1)[0]}", mistake]
        process = await asyncio.to_thread(ended, *given, cwd=one.place)
        assert process.returncode == 1
        assert process.stderr.count("\n") == 1, "nothing was begun: it does not even listen"
        owner = "node n1 of cluster 'raftbed'"
        assert f"{one.place / 'n1'}: is the directory of {owner}, not of {named}. Give this node" in process.stderr
    await one.start("n1")
