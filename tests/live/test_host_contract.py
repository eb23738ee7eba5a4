# a test may wait for the local disk
"""The contract of a host, which every kind of host keeps: run, put, get, kill, reboot, address, partition, leftovers.

The kinds are in `tests_host_kinds`. As root, `test_hosts_as_user.py` runs this module again as an ordinary user.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal

import aiohttp
import pytest
import pytest_asyncio
from tests_host_kinds import KINDS, NAMES

from raftbed.deploy import deploy_all, process_alive, signal_process, start_detached
from raftbed.errors import CommandError, HostError
from raftbed.faults.partition import Partition
from raftbed.faults.toolbox import MECHANISMS, Toolbox
from raftbed.hosts.base import Host, HostPool
from raftbed.hosts.preflight import Needs, ask, preflight
from raftbed.model import FaultStep

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=KINDS, ids=lambda kind: kind.name)
async def pool(request, tmp_path_factory):
    reason = request.param.why_not()
    if reason:
        pytest.skip(reason)
    async with request.param.pool(tmp_path_factory.mktemp("kind")) as made:
        yield made


@pytest.fixture
def host(pool) -> Host:
    return pool.hosts["n1"]


# -- run ------------------------------------------------------------------------------------------------------------


async def test_a_command_runs_as_the_administrator_of_the_host(host):
    result = await host.run(["sh", "-c", "id -u; hostname; pwd"])
    assert result.stdout.split() == ["0", "n1", "/root"]


async def test_arguments_are_never_read_by_a_shell(host):
    nasty = ["a b", "$HOME", "`id`", "'", '"', "\\", "*", "", "line\nline", "é"]
    result = await host.run(["printf", r"%s\0", *nasty])
    assert result.stdout.split("\0")[:-1] == nasty


async def test_a_failure_names_host_command_status_and_stderr(host):
    with pytest.raises(CommandError) as failure:
        await host.run(["sh", "-c", "echo sorry >&2; exit 7"])
    error = failure.value
    assert (error.host, error.status, error.stderr) == ("n1", 7, "sorry\n")
    assert "sorry" in str(error)
    assert "exit 7" in str(error)


async def test_status_and_output_come_back_unchecked(host):
    result = await host.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (result.status, result.stdout, result.stderr) == (3, "out\n", "err\n")


async def test_an_end_by_signal_is_128_plus_its_number(host):
    assert (await host.run(["sh", "-c", "kill -KILL $$"], check=False)).status == 128 + signal.SIGKILL


async def test_input_reaches_the_command(host):
    sent = os.urandom(300_000)
    result = await host.run(["sha256sum"], stdin=sent)
    assert result.stdout.split()[0] == hashlib.sha256(sent).hexdigest()


async def test_a_command_that_reads_no_input_is_no_error(host):
    assert (await host.run(["true"], stdin=bytes(1 << 20))).status == 0


async def test_a_command_past_its_time_is_killed(host):
    with pytest.raises(CommandError, match="did not end in time") as failure:
        await host.run(["sh", "-c", "echo $$ > /tmp/pid; exec sleep 1000"], timeout=0.5)
    assert failure.value.status is None
    await host.run(["sh", "-c", "while kill -0 $(cat /tmp/pid) 2>/dev/null; do sleep 0.02; done"])


async def test_many_commands_at_once(host):
    results = await asyncio.gather(*(host.run(["echo", str(number)]) for number in range(30)))
    assert [result.stdout for result in results] == [f"{number}\n" for number in range(30)]


# -- put and get ----------------------------------------------------------------------------------------------------


async def test_files_arrive_whole_with_their_mode(host, tmp_path):
    content = os.urandom(3_000_000)
    await host.put(content, f"{host.home}/some/where/file", mode=0o640)
    source = tmp_path / "source"
    source.write_bytes(content)
    await host.put(source, f"{host.home}/second")
    listed = await host.run(["stat", "-c", "%a", f"{host.home}/some/where/file", f"{host.home}/second"])
    assert listed.stdout.split() == ["640", "644"]
    for name in ("some/where/file", "second"):
        assert await host.get(f"{host.home}/{name}", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600


async def test_a_file_that_cannot_be_written_leaves_nothing_beside(host):
    await host.run(["mkdir", "-p", "/var/tmp/taken/file"])
    with pytest.raises(CommandError, match="n1"):
        await host.put(b"x", "/proc/self/nowhere/file")
    assert (await host.run(["find", "/var/tmp/taken", "-name", "*.part"])).stdout == ""


async def test_get_takes_the_end_of_a_large_file_and_knows_a_missing_one(host, tmp_path):
    await host.put(b"0123456789", "/var/tmp/digits")
    assert await host.get("/var/tmp/digits", tmp_path / "tail", limit=4)
    assert (tmp_path / "tail").read_bytes() == b"6789"
    assert not await host.get("/var/tmp/nothing", tmp_path / "none")
    assert not (tmp_path / "none").exists()


# -- processes and kills --------------------------------------------------------------------------------------------


async def test_a_detached_process_lives_on_and_dies_verified(host):
    run = f"{host.home}/run"
    script = (
        'echo "$$ $(cut -d" " -f22 /proc/$$/stat)" > node.pid; echo "$PWD $COLOUR $SSH_CONNECTION"; sleep 1000 & wait'
    )
    started = await start_detached(
        host, ["sh", "-c", script], environment={"COLOUR": "blue"}, directory=run, log=f"{run}/node.log"
    )
    await host.run(["sh", "-c", f"until [ -s {run}/node.pid ]; do sleep 0.02; done"])
    host.abandon()
    alive = await process_alive(host, f"{run}/node.pid")
    assert alive == started
    assert alive.is_alive
    assert (await host.run(["cat", f"{run}/node.log"])).stdout == f"{run} blue \n"
    assert (await signal_process(host, f"{run}/node.pid", "STOP")).state == "stopped"
    killed = await signal_process(host, f"{run}/node.pid", "KILL")
    assert (killed.state, killed.pid, killed.start) == ("gone", started.pid, started.start)
    assert (await signal_process(host, f"{run}/node.pid", "KILL")).state == "gone"


# -- connections, addresses, endpoints ------------------------------------------------------------------------------


async def test_a_broken_connection_is_made_anew(host):
    await host.run(["true"])
    host._connection.abort()
    assert (await host.run(["echo", "again"])).stdout == "again\n"


async def test_hosts_reach_each_other_at_their_addresses(pool):
    script = "import socket,sys; s=socket.create_connection((sys.argv[1],22),5); print(s.recv(4), s.getsockname()[0])"
    assert len({host.address for host in pool.hosts.values()}) == len(NAMES)
    one, two = pool.hosts["n1"], pool.hosts["n2"]
    result = await one.run([one.python, "-S", "-c", script, two.address])
    assert result.stdout.split() == ["b'SSH-'", one.address]


SERVE = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"here")

server = http.server.HTTPServer((sys.argv[1], 8401), Handler)
with open("http.pid", "w") as file:
    start = open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]
    file.write(f"{os.getpid()} {start}")
server.serve_forever()
"""


async def get(pool: HostPool, host: Host) -> tuple[int, bytes] | None:
    """What the controller gets from port 8401 of a host; None when it is refused."""
    endpoint = await host.endpoint(8401)
    connector: aiohttp.BaseConnector = aiohttp.TCPConnector(socket_factory=pool.socket_factory)
    if endpoint.unix_socket:
        connector = aiohttp.UnixConnector(endpoint.unix_socket)
    async with aiohttp.ClientSession(connector=connector) as session:
        try:
            async with session.get(f"http://{endpoint.address}/") as answer:
                return answer.status, await answer.read()
        except aiohttp.ClientConnectorError:
            return None


async def test_the_controller_reaches_a_port_and_knows_when_nobody_listens(pool, host):
    endpoint = await host.endpoint(8401)
    run = f"{host.home}/run"
    refused = await get(pool, host)
    assert refused is None or (refused[0] == 502 and b'"definite": true' in refused[1])
    command = [host.python, "-S", "-c", SERVE, endpoint.listen]
    await start_detached(host, command, environment={}, directory=run, log=f"{run}/http.log")
    await host.run(["sh", "-c", f"until [ -s {run}/http.pid ]; do sleep 0.02; done"])
    assert await get(pool, host) == (200, b"here")
    await signal_process(host, f"{run}/http.pid", "KILL")
    refused = await get(pool, host)
    assert refused is None or refused[0] == 502


# -- crash and reboot -----------------------------------------------------------------------------------------------


async def test_a_crash_takes_everything_but_the_disk_and_a_reboot_brings_it_back(pool):
    host = pool.hosts["n3"]
    await host.put(b"kept", f"{host.home}/kept")
    script = 'echo "$$ $(cut -d" " -f22 /proc/$$/stat)" > node.pid; sleep 1000'
    run = f"{host.home}/run"
    await start_detached(host, ["sh", "-c", script], environment={}, directory=run, log=f"{run}/log")
    await host.run(["sh", "-c", f"until [ -s {run}/node.pid ]; do sleep 0.02; done"])
    address = host.address
    await host.crash()
    with pytest.raises(HostError, match="n3: "):
        await host.run(["true"], timeout=5.0)
    await host.reboot()
    assert host.address == address
    assert (await host.run(["cat", f"{host.home}/kept"])).stdout == "kept"
    assert not (await process_alive(host, f"{run}/node.pid")).is_alive
    peer = pool.hosts["n1"]
    script = f"import socket; print(socket.create_connection(({address!r}, 22), 5).recv(4))"
    assert "SSH-" in (await peer.run([peer.python, "-S", "-c", script])).stdout


async def test_a_crash_says_no_goodbye_to_peers(pool):
    """A dead machine sends no FIN: the connection stays open at the other end, and silent."""
    host, peer = pool.hosts["n3"], pool.hosts["n1"]
    serve = "import socket; s=socket.create_server(('', 7000)); open('/tmp/up','w'); c,_=s.accept(); c.recv(1)"
    await start_detached(host, [host.python, "-S", "-c", serve], environment={}, directory="/tmp", log="/tmp/log")
    await host.run(["sh", "-c", "until [ -e /tmp/up ]; do sleep 0.02; done"])
    client = (
        f"import socket; s=socket.create_connection(({host.address!r}, 7000)); s.settimeout(2)\n"
        "open('/tmp/connected','w')\n"
        "try: print('closed', s.recv(1))\n"
        "except TimeoutError: print('silent')\n"
    )
    reading = asyncio.create_task(peer.run([peer.python, "-S", "-c", client], timeout=20.0))
    await peer.run(["sh", "-c", "until [ -e /tmp/connected ]; do sleep 0.02; done"])
    await host.crash()
    assert (await reading).stdout == "silent\n"
    await host.reboot()


# -- deployment -----------------------------------------------------------------------------------------------------


async def test_the_nodes_code_is_pushed_once_and_runs(pool):
    first = await deploy_all(pool.hosts.values())
    assert [installation.was_present for installation in first.values()] == [False] * 3
    second = await deploy_all(pool.hosts.values())
    assert [installation.was_present for installation in second.values()] == [True] * 3
    host, installation = pool.hosts["n1"], first["n1"]
    assert installation.directory.startswith(f"{host.home}/bundle/")
    code = "import aiohttp, msgspec, raftbed.nodes; print(raftbed.nodes.__file__)"
    environment = f"PYTHONPATH={installation.pythonpath}"
    ran = await host.run(["env", environment, *installation.python, "-c", code], timeout=30.0)
    assert ran.stdout.strip() == f"{installation.directory}/raftbed/nodes/__init__.py"


# -- partitions and leftovers ---------------------------------------------------------------------------------------


async def test_a_partition_is_made_proved_and_healed(pool):
    boxes = {name: Toolbox(host, lease_seconds=600) for name, host in pool.hosts.items()}
    for box in boxes.values():
        await box.prepare()
    partition = Partition(boxes, max((box.mechanism for box in boxes.values()), key=MECHANISMS.index))
    await partition.check_open()
    step = FaultStep("f01", "partition", "one", 0.0, 1.0, NAMES)
    await partition.inject(step, NAMES)
    evidence = await partition.prove(step)
    assert evidence["still_open"] == 2  # n2 and n3, in both directions
    # Whoever comes next is told, and the controller's own way is not cut.
    with pytest.raises(HostError, match="faults of another run are in force"):
        await preflight(pool.hosts, Needs())
    await partition.heal(step)
    await partition.check_open()
    assert await preflight(pool.hosts, Needs(faults=("partition",))) == []


async def test_a_node_that_an_earlier_run_left_is_found(pool, host):
    run = f"{host.home}/run"
    pid_file = f"{run}/node.pid"
    await start_detached(host, ["sleep", "1000"], environment={}, directory=run, log=f"{run}/log", pid_file=pid_file)
    await host.put(b'{"id":"n1","cluster":"c 1","listen":""}', f"{run}/node.json")
    with pytest.raises(HostError, match=r"^n1: a node of the cluster 'c 1' is running .* \(process \d+\)\. .* clean"):
        await preflight(pool.hosts, Needs())
    await signal_process(host, pid_file, "KILL")
    assert await preflight(pool.hosts, Needs()) == []


async def test_preflight_sees_what_a_host_is(host):
    facts = await ask(host, ports=(22, 8400))
    assert facts.one("user").startswith("0 ")
    assert facts.one("python").startswith("cpython 3 ")
    assert host.address in facts.all("address")
    assert facts.all("taken") == ["22"]
    assert abs(facts.offset) <= 1.0 + facts.uncertainty
