"""Partitions on local hosts, by every mechanism that works here: they cut what they say, no more, and leave nothing."""

from __future__ import annotations

import asyncio
import secrets
import time

import pytest
import pytest_asyncio

from raftbed.errors import FaultError, HostError
from raftbed.faults.base import LeaderSeen
from raftbed.faults.nemesis import Nemesis
from raftbed.faults.partition import Partition
from raftbed.faults.toolbox import MECHANISMS, Toolbox
from raftbed.hosts.local import LocalPool
from raftbed.hosts.prerequisites import find_program, namespace_obstacle, possible_modes, require_programs
from raftbed.model import FaultEvent, FaultStep

pytestmark = [pytest.mark.live, pytest.mark.asyncio(loop_scope="module")]

NODES = ("n1", "n2", "n3")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool(tmp_path_factory):
    try:
        require_programs()
    except HostError as error:
        pytest.skip(str(error))
    obstacle = namespace_obstacle()
    if obstacle is not None:
        pytest.skip(obstacle.reason)
    made = LocalPool(NODES, tmp_path_factory.mktemp("lab") / "lab", mode=possible_modes()[0])
    await made.start()
    yield made
    await made.close()


@pytest_asyncio.fixture(loop_scope="module", params=MECHANISMS)
async def mechanism(request, pool) -> str:
    package = {"nft": "nftables", "iptables": "iptables"}.get(request.param)
    if package and not find_program(request.param):
        pytest.skip(f"needs {request.param} (apt-get install {package})")
    if request.param == "netlink":
        await need_packet_filter(pool)
    return request.param


async def need_packet_filter(pool) -> None:
    box = Toolbox(pool.hosts["n1"])
    await box.prepare()
    probe = await box.host.run([box.host.python, "-I", "-S", f"{box.directory}/cut_netlink.py", "probe"], check=False)
    if probe.status:
        pytest.skip(f"needs a kernel with nf_tables (modprobe nf_tables): {probe.stderr}")


class Bench:
    """A nemesis, or the parts of one, on the hosts of a pool.

    Nobody renews leases here: they are long, so that no host heals itself in the middle of a test on a busy machine.
    """

    def __init__(self, pool: LocalPool, mechanism: str | None = None, *, lease_seconds: int = 600) -> None:
        self.hosts = pool.hosts
        self.ledger: list[FaultEvent] = []
        self.nemesis = Nemesis(
            hosts=pool.hosts,
            control=NoProcesses(),
            clock=time.monotonic_ns,
            record_event=self.ledger.append,
            record_op=lambda op: None,
            mechanism=mechanism,
            lease_seconds=lease_seconds,
        )

    @property
    def partition(self) -> Partition:
        fault = self.nemesis._faults["partition"]  # the parts of a step are called one by one here
        assert isinstance(fault, Partition)
        return fault

    @property
    def boxes(self) -> dict[str, Toolbox]:
        return self.nemesis._toolboxes

    async def cut(self, name: str, shape: str, order=NODES) -> FaultStep:
        step = FaultStep(name, "partition", shape, 0.0, 1.0, order)
        await self.partition.inject(step, order)
        return step

    async def hears(self, node: str, other: str) -> bool:
        """A datagram of `other` reaches `node`."""
        token = secrets.token_hex(8)
        receive = self.hosts[node].run([self.hosts[node].python, "-c", RECEIVE, token, "0.7"])
        send = self.hosts[other].run([self.hosts[other].python, "-c", SEND, token, self.hosts[node].address, "1.2"])
        heard, _ = await asyncio.gather(receive, send)
        return heard.stdout.strip() == "heard"

    async def network(self) -> dict[str, tuple[str, ...]]:
        """All rules and routes of every host, without counters."""
        return {name: await rules(host) for name, host in self.hosts.items()}


class NoProcesses:
    """Control of nodes in a test that has none."""

    async def leader(self) -> LeaderSeen | None:
        return LeaderSeen("n2", 7, {"n2": "leader in term 7"})


RECEIVE = """
import socket, sys, time
token, seconds = sys.argv[1].encode(), float(sys.argv[2])
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 9999))
end, heard = time.monotonic() + seconds, False
while not heard and time.monotonic() < end:
    sock.settimeout(max(0.01, end - time.monotonic()))
    try:
        heard = sock.recv(100) == token
    except TimeoutError:
        pass
print("heard" if heard else "silence")
"""
SEND = """
import socket, sys, time
token, address, end = sys.argv[1].encode(), sys.argv[2], time.monotonic() + float(sys.argv[3])
sock = socket.socket(type=socket.SOCK_DGRAM)
while time.monotonic() < end:
    try:
        sock.sendto(token, (address, 9999))
    except OSError:
        pass  # a blackhole route tells the sender
    time.sleep(0.02)
"""


async def rules(host) -> tuple[str, ...]:
    script = """
    PATH=/usr/sbin:/sbin:/usr/bin:/bin
    ip route show table all
    iptables-save 2>/dev/null | grep "^-A"  # it leaves the empty tables that it makes: they decide nothing
    nft --stateless list tables 2>/dev/null | grep inet
    nft --stateless list table inet other 2>/dev/null
    true
    """
    return tuple((await host.run(["sh", "-c", script])).stdout.splitlines())


async def eventually(condition, what: str, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < end, f"still not so: {what}"
        await asyncio.sleep(0.1)


async def test_one_way_is_one_way_and_heals_to_what_was_there_before(pool, mechanism):
    bench = Bench(pool, mechanism)
    await bench.nemesis.prepare()
    before = await bench.network()
    step = await bench.cut("f01", "leader-deaf")
    proof = await bench.partition.prove(step)
    assert proof["cut_one_way"] == ["n2 to n1", "n3 to n1"]
    assert await bench.network() != before
    hears = await asyncio.gather(bench.hears("n1", "n2"), bench.hears("n2", "n1"))
    assert hears == [False, True]
    await bench.partition.heal(step)
    assert await bench.network() == before
    assert await bench.nemesis.heal_all() == []


async def test_faults_that_overlap_have_owners(pool, mechanism):
    bench = Bench(pool, mechanism)
    await bench.nemesis.prepare()
    first, second = await bench.cut("f01", "one"), await bench.cut("f02", "leader-deaf")
    assert (await bench.partition.prove(first))["cut_one_way"] == []
    assert (await bench.partition.prove(second))["cut_one_way"] == []  # the other fault closes the way back
    await bench.partition.heal(first)
    assert (await bench.partition.prove(second))["cut_one_way"] == ["n2 to n1", "n3 to n1"]
    await bench.partition.heal(second)
    await bench.partition.check_open()


@pytest.mark.parametrize(("first", "second"), [("a1", "b1"), ("left", "right"), ("f008", "f8")])
async def test_routes_of_two_faults_are_apart_whatever_their_ids_are(pool, first, second):
    box = Toolbox(pool.hosts["n1"])
    await box.prepare()

    async def routes() -> int:
        return len((await box.host.run(["ip", "route", "show", "type", "blackhole"])).stdout.splitlines())

    counts = []
    for command, owner in ((box.cut, first), (box.cut, second), (box.heal, first), (box.heal, second)):
        await box.host.run(command("route", owner, 4, ["10.0.0.2"]))
        counts.append(await routes())
    assert counts == [1, 2, 1, 0]


TALK = """
import pathlib, socket, sys, time
address, marks = sys.argv[1], pathlib.Path(sys.argv[2])
def mark(name):
    (marks / name).touch()
def wait(name):
    while not (marks / name).exists():
        time.sleep(0.01)
sock = socket.create_connection((address, 9998), timeout=5)
sock.settimeout(0.5)
sock.sendall(b"1")
assert sock.recv(1) == b"1"
mark("talking")
wait("cut")
sock.sendall(b"2")
try:
    print(sock.recv(1) == b"2" and "answered")
except TimeoutError:
    print("silence")
mark("tried")
wait("healed")
sock.settimeout(10)
print(sock.recv(1) == b"2" and "answered")
"""
ECHO = """
import pathlib, socket, sys
server = socket.create_server(("0.0.0.0", 9998))
pathlib.Path(sys.argv[1]).touch()
peer, _ = server.accept()
peer.settimeout(20)
while data := peer.recv(1):
    peer.sendall(data)
"""


async def test_connections_that_are_open_are_cut_and_come_back(pool, mechanism):
    bench = Bench(pool, mechanism)
    await bench.nemesis.prepare()
    here, there = pool.hosts["n1"], pool.hosts["n2"]
    marks = f"{here.home}/marks-{mechanism}"
    await asyncio.gather(*(host.run(["mkdir", "-p", marks]) for host in (here, there)))

    def marked(host, name):
        async def look() -> bool:
            return (await host.run(["test", "-e", f"{marks}/{name}"], check=False)).status == 0

        return eventually(look, name)

    async with asyncio.TaskGroup() as group:
        group.create_task(there.run([there.python, "-c", ECHO, f"{marks}/listening"], timeout=40))
        await marked(there, "listening")
        talk = group.create_task(here.run([here.python, "-c", TALK, there.address, marks], timeout=40))
        await marked(here, "talking")
        step = await bench.cut("f01", "one")
        await here.run(["touch", f"{marks}/cut"])  # SSH still works
        await marked(here, "tried")
        await bench.partition.heal(step)
        await here.run(["touch", f"{marks}/healed"])
    assert talk.result().stdout.split() == ["silence", "answered"]


async def test_a_cut_that_is_not_there_is_noticed(pool):
    bench = Bench(pool)
    await bench.nemesis.prepare()
    step = await bench.cut("f01", "one")
    for box in bench.boxes.values():
        await box.heal_leftovers()
    with pytest.raises(FaultError, match="n1 reached n2"):
        await bench.partition.prove(step)
    await bench.partition.heal(step)


async def test_a_host_that_is_cut_more_than_planned_is_noticed(pool, monkeypatch):
    monkeypatch.setattr("raftbed.faults.partition._PROBE_SECONDS", (0.3, 1.0))  # more patience opens no way
    bench = Bench(pool)
    await bench.nemesis.prepare()
    box = bench.boxes["n3"]
    mechanism = box.mechanism
    address = pool.hosts["n2"].address
    await box.host.run(box.cut(mechanism, "f77", 4, [address]))
    step = await bench.cut("f01", "one")
    with pytest.raises(FaultError, match=r"n3 to n2: .* although nothing cuts it"):
        await bench.partition.prove(step)
    with pytest.raises(HostError, match=r"cannot reach each other before any fault: .*n3 to n2"):
        await bench.partition.check_open()
    await box.host.run(box.heal(mechanism, "f77", 4, [address]))
    await bench.partition.heal(step)


async def test_without_a_controller_a_host_heals_itself_and_that_is_told(pool):
    await need_packet_filter(pool)
    bench = Bench(pool, "netlink", lease_seconds=1)
    await bench.nemesis.prepare()
    before = await bench.network()
    step = await bench.cut("f01", "one")

    async def healed() -> bool:
        return await bench.network() == before

    await eventually(healed, "the hosts healed themselves")
    assert (await bench.partition.heal(step))["healed_before_by_dead_man"] == ["n1", "n2", "n3"]
    # The controller was only asleep: with its next renewal there is a dead-man again.
    await asyncio.gather(*(box.renew() for box in bench.boxes.values()))
    await bench.cut("f02", "one")
    await eventually(healed, "they did so again")


async def test_leases_that_are_kept_keep_the_faults(pool):
    bench = Bench(pool, lease_seconds=1)
    await bench.nemesis.prepare()
    keeper = asyncio.ensure_future(bench.nemesis.keep_leases())
    step = await bench.cut("f01", "one")
    await asyncio.sleep(3.5)  # longer than a dead-man waits; there is nothing to wait for
    await bench.partition.prove(step)
    keeper.cancel()
    await asyncio.gather(keeper, return_exceptions=True)
    assert "healed_before_by_dead_man" not in await bench.partition.heal(step)
    assert await bench.nemesis.heal_all() == []


async def test_what_a_run_before_left_is_healed_at_set_up(pool, mechanism):
    dead = Bench(pool, mechanism)
    await dead.nemesis.prepare()
    before = await dead.network()
    await dead.cut("f01", "one")
    # On this host the undo scripts are lost, and only the rules are left.
    await pool.hosts["n1"].run(["rm", "-rf", f"{pool.hosts['n1'].home}/faults"])
    await Bench(pool).nemesis.prepare()
    assert await dead.network() == before


async def test_rules_of_others_are_left_alone(pool):
    if not find_program("nft"):
        pytest.skip("needs nft (apt-get install nftables)")
    host = pool.hosts["n1"]
    await host.run(["nft", "-f", "-"], stdin=b"table inet other { chain input { ip saddr 192.0.2.9 drop; }; }")
    bench = Bench(pool)
    await bench.nemesis.prepare()
    before = await bench.network()
    await bench.nemesis.run([FaultStep("f01", "partition", "halves", 0.0, 0.2, NODES)], start=time.monotonic_ns())
    assert await bench.nemesis.heal_all() == []
    assert await bench.network() == before
    await host.run(["nft", "delete", "table", "inet", "other"])


async def test_a_schedule_aims_at_the_leader_and_is_recorded(pool):
    bench = Bench(pool)
    await bench.nemesis.prepare()
    steps = [
        FaultStep("f01", "partition", "leader-alone", 0.1, 1.0, NODES),
        FaultStep("f02", "partition", "halves", 0.7, 1.6, NODES),
    ]
    await bench.nemesis.run(steps, start=time.monotonic_ns())
    assert {event.fault: event.state for event in bench.ledger} == {"f01": "healed", "f02": "healed"}
    assert [event.state for event in bench.ledger if event.fault == "f01"] == ["injected", "proved", "healed"]
    injected = bench.ledger[0]
    assert (injected.detail["leader"], injected.detail["term"]) == ("n2", 7)
    assert injected.detail["drops"] == {"n1": ["n2"], "n2": ["n1", "n3"], "n3": ["n2"]}


async def test_a_bare_host_cuts_through_the_kernels_own_interface(pool):
    """A fresh machine has neither nft nor iptables; its kernel has what they use."""
    host = pool.hosts["n1"]
    await need_packet_filter(pool)
    program = [host.python, "-I", "-S", f"{host.home}/faults/cut_netlink.py"]
    before = await rules(host)
    await host.run([*program, "cut", "f01", "4", "192.0.2.1", "2001:db8::1"])
    counts = (await host.run([*program, "count", "f01"])).stdout.splitlines()
    assert sorted(counts) == ["192.0.2.1 0 0", "2001:db8::1 0 0"]
    for _ in range(2):  # twice is harmless
        await host.run([*program, "heal", "f01"])
    assert await rules(host) == before
