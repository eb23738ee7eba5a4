"""A cluster to play with: brought up, looked at, operated and taken away, by commands as a user types them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests_machine import why_no_local_hosts

from raftbed.hosts import labs

OBSTACLE = why_no_local_hosts()
pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "it can")]

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl (apt-get install curl)")
needs_ssh = pytest.mark.skipif(not shutil.which("ssh"), reason="needs ssh (apt-get install openssh-client)")
NODES = ["n1", "n2", "n3"]


def until(condition: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    """Wait until `condition` holds; what it returned."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still not so after {timeout:.0f} s: {what}"
        time.sleep(0.05)
    return found


class User:
    """Somebody who types commands, with places of his own for what they remember.

    Parameters:
        home: those places.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "runtime").mkdir(mode=0o700)
        self.environment = {
            **os.environ,
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_RUNTIME_DIR": str(home / "runtime"),
            "COLUMNS": "200",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "raftbed.cli", *arguments]

    def types(self, *arguments: str, expect: int = 0, stdin: str = "") -> str:
        """Run `raftbed cluster ...`; what it wrote to standard output and, behind it, standard error."""
        done = subprocess.run(
            self.command("cluster", *arguments),
            capture_output=True,
            text=True,
            input=stdin,
            cwd=self.home,
            env=self.environment,
            timeout=120,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == expect, f"raftbed cluster {' '.join(arguments)}: {done.returncode}\n{said}"
        return said

    def status(self, *, expect: int = 0) -> dict[str, Any]:
        """What `status --json` says; the nodes by name."""
        found = json.loads(self.types("status", "--json", expect=expect))
        return {**found, "nodes": {node["node"]: node for node in found["nodes"]}}

    def is_well(self) -> bool:
        done = subprocess.run(self.command("cluster", "status"), capture_output=True, env=self.environment, check=False)
        return done.returncode == 0

    def shell(self, line: str) -> str:
        return subprocess.run(
            line, shell=True, capture_output=True, text=True, env=self.environment, timeout=60, check=True
        ).stdout

    def lab(self) -> Path:
        """The directory of the only cluster's lab."""
        [found] = (self.home / "state/raftbed/clusters").iterdir()
        return found


@pytest.fixture(scope="module", autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """As at a terminal: what a script starts in its background is told to ignore SIGINT, and so are its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def up(tmp_path_factory) -> Iterator[tuple[User, str]]:
    """A user with a cluster of three nodes that can be reached on loopback, and what he was told about it."""
    user = User(tmp_path_factory.mktemp("cluster"))
    said = user.types("up", "--nodes", "3", "--forward")
    try:
        yield user, said
    finally:
        user.types("down")


@pytest.fixture
def user(up) -> Iterator[User]:
    """That user; after the test his cluster must be well again."""
    yield up[0]
    until(up[0].is_well, "the test leaves the cluster as it found it")


@needs_curl
def test_the_commands_that_up_prints_work_as_they_stand_there(up, user):
    lines = [line.strip() for line in up[1].splitlines() if line.startswith("  curl")]
    written, read = [json.loads(user.shell(line)) for line in lines]
    assert (written["value"], read["value"]) == (7, 7)


@needs_curl
def test_without_a_forward_a_node_is_asked_from_its_host(user):
    leader = user.status()["nodes"]["n1"]["leader"]
    address = user.status()["nodes"][leader]["address"]
    said = user.types("exec", leader, "--", "curl", "-sS", f"http://{address}/status")
    assert json.loads(said.removeprefix(f"{leader} | "))["state"] == "leader"


def test_a_cluster_that_is_well_says_so_of_every_node(user):
    status = user.status()
    assert status["healthy"] and not status["problems"]
    assert list(status["nodes"]) == NODES
    for node in status["nodes"].values():
        assert node["process"] == "running" and node["role"] in ("leader", "follower")
        assert node["disk_free"] > 0 and abs(node["clock_offset"]) <= node["clock_error"]  # it is this machine's clock
    assert len({node["bundle"] for node in status["nodes"].values()}) == 1
    assert "The cluster default is well." in user.types("status")


def test_a_node_that_was_stopped_is_missed_and_started_again(user):
    before = user.status()["nodes"]["n2"]["uptime"]
    assert "n2  stopped" in user.types("stop", "n2")
    said = user.types("status", expect=1)
    assert re.search(r"^n2 .* does not run: no pid file$", said, re.MULTILINE)
    assert "1 of 3 nodes is not well" in said
    assert user.status(expect=1)["nodes"]["n1"]["process"] == "running"
    assert "n2  did not run" in user.types("stop", "n2")
    started = user.types("start")
    assert "n2  started" in started and "n1  ran already" in started
    until(user.is_well, "n2 follows again")
    assert user.status()["nodes"]["n2"]["uptime"] != before


def test_a_restart_gives_every_node_a_new_process_and_keeps_its_data(user):
    before = user.status()["nodes"]
    said = user.types("restart")
    assert [line.split()[:2] for line in said.splitlines()] == [[node, "restarted"] for node in NODES]
    until(user.is_well, "the cluster has a leader again")
    after = user.status()["nodes"]
    assert all(after[node]["applied"] >= before[node]["applied"] for node in NODES)


def test_logs_of_all_nodes_come_in_the_order_of_their_times(user):
    lines = [re.match(r"(n\d) \| (\d{4}-\S+ \S+) ", line) for line in user.types("logs", "--lines", "50").splitlines()]
    timed = [match for match in lines if match]
    assert {match[1] for match in timed} == set(NODES)
    assert [match[2] for match in timed] == sorted(match[2] for match in timed)
    assert {line.split()[0] for line in user.types("logs", "n2").splitlines()} == {"n2"}


def test_following_logs_shows_what_comes_and_leaves_nothing_behind(user):
    with subprocess.Popen(
        user.command("cluster", "logs", "--follow", "--lines", "1"),
        stdout=subprocess.PIPE,
        text=True,
        env=user.environment,
    ) as following:
        first = [following.stdout.readline() for _ in NODES]
        assert {line.split()[0] for line in first} == set(NODES)
        user.types("restart", "n3")
        for line in following.stdout:
            if line.startswith("n3 |") and "node n3 stops" in line:
                break
        following.send_signal(signal.SIGINT)
        following.stdout.read()
        assert following.wait(30) == 0
    left = ["exec", "--", "sh", "-c", "for p in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $p; echo; done"]
    until(lambda: "tail -n" not in user.types(*left), "no tail is left on a host")


def test_a_command_runs_on_all_hosts_and_ends_with_the_worst_status(user):
    assert user.types("exec", "--", "hostname") == "n1 | n1\nn2 | n2\nn3 | n3\n"
    script = 'echo out; echo "to stderr" >&2; [ "$(hostname)" != n2 ] || exit 7'
    said = user.types("exec", "n2", "n1", "--", "sh", "-c", script, expect=7)
    assert said.startswith("n1 | out\nn2 | out\nn1 | to stderr\nn2 | to stderr\n")
    assert "sleep 60" in user.types("exec", "--timeout", "0.5", "n1", "--", "sleep", "60", expect=255)
    assert user.types("exec", "n1", "--", "printf", "%s.", "a b", "$HOME") == "n1 | a b.$HOME.\n"  # no shell read it
    user.types("exec", "n9", "--", "true", expect=255)
    user.types("exec", "n1", expect=254)


def test_a_host_that_is_down_is_named_and_keeps_nobody_from_the_others(user):
    def lab(action: str) -> None:
        with labs.call_lab(user.lab(), 30) as channel:
            channel.send(json.dumps({"id": 1, "do": action, "hosts": ["n3"]}).encode())
            assert "error" not in json.loads(channel.recv(1 << 16))

    lab("crash")
    try:
        said = user.types("exec", "--", "hostname", expect=255)
        assert "n1 | n1\n" in said
        assert re.search(r"^n3 \| SSH (at 10\.0\.0\.3:22 did not answer|to 10\.0\.0\.3:22 failed)", said, re.MULTILINE)
        status = user.status(expect=1)
        assert "10.0.0.3:22" in status["nodes"]["n3"]["host_error"]
        assert status["nodes"]["n3"]["process"] == "unknown"  # nobody can say that it is gone
        assert status["nodes"]["n1"]["process"] == "running"
    finally:
        lab("boot")
    until(lambda: "started" in user.types("start", "n3"), "n3 runs again")


@needs_ssh
def test_plain_ssh_reaches_into_the_lab(user, tmp_path):
    config = tmp_path / "a config"
    assert "ssh -F" in user.types("ssh-config", "--out", str(config))
    assert config.stat().st_mode & 0o777 == 0o600
    content = os.urandom(200_000)
    ssh = ["ssh", "-F", str(config)]
    assert subprocess.run([*ssh, "n2", "hostname"], capture_output=True, timeout=60, check=True).stdout == b"n2\n"
    done = subprocess.run([*ssh, "n1", "cat"], input=content, capture_output=True, timeout=60, check=True)
    assert done.stdout == content


@needs_ssh
def test_plain_ssh_refuses_a_host_with_another_key(user, tmp_path):
    text = user.types("ssh-config")
    [known_hosts] = set(re.findall(r"UserKnownHostsFile (\S+)", text))
    lines = Path(known_hosts).read_text().splitlines()
    names = [line.split(" ", 1)[0] for line in lines]
    keys = [line.split(" ", 1)[1] for line in lines]
    (tmp_path / "other").write_text(
        "".join(f"{name} {key}\n" for name, key in zip(names, keys[1:] + keys[:1], strict=True))
    )
    (tmp_path / "config").write_text(text.replace(known_hosts, str(tmp_path / "other")))
    command = ["ssh", "-F", tmp_path / "config", "n1", "hostname"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 255 and "HOST IDENTIFICATION HAS CHANGED" in done.stderr


@needs_ssh
def test_ssh_opens_a_session_and_ends_with_its_status(user):
    assert "n3\n" in user.types("ssh", "n3", stdin="hostname; exit 4\n", expect=4)
    user.types("ssh", "n9", expect=255)


def test_a_deployment_changes_the_code_and_keeps_the_data(user):
    honest = user.status()["nodes"]["n1"]
    assert "with the bug stale-leader-read is on all 3 hosts" in user.types("deploy", "--bug", "stale-leader-read")
    until(user.is_well, "the nodes serve again")
    planted = user.status()["nodes"]
    assert {node["bug"] for node in planted.values()} == {"stale-leader-read"}
    assert {node["bundle"] for node in planted.values()} != {honest["bundle"]}
    assert all(node["applied"] >= honest["applied"] for node in planted.values())
    user.types("deploy", "--at-once")
    until(user.is_well, "the nodes serve again")
    assert {node["bundle"] for node in user.status()["nodes"].values()} == {honest["bundle"]}


def test_clean_removes_everything_and_a_new_cluster_can_be_made_of_the_same_hosts(user):
    user.types("exec", "n2", "--", "touch", "/var/lib/raftbed/mine")
    said = user.types("clean")
    assert "n1  removed\n" in said and "left alone, because it is not raftbed's: mine" in said
    assert user.types("exec", "--", "sh", "-c", "ls -A /var/lib/raftbed 2>/dev/null || :") == "n2 | mine\n"
    assert {node["process"] for node in user.status(expect=1)["nodes"].values()} == {"gone"}
    assert "raftbed cluster deploy" in user.types("start", expect=255)
    assert "No node runs" in user.types("deploy")
    user.types("start")
    until(user.is_well, "the new cluster has a leader")


def closed(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return False
    return True


def processes_of(place: Path) -> list[str]:
    """The command lines of this machine's processes that name a place."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if any(str(place).encode() in word for word in words):
                found.append(b" ".join(words).decode())
    return found


def test_down_leaves_nothing(tmp_path):
    user = User(tmp_path)
    user.types("up", "--nodes", "1", "--forward", "--cluster", "short-lived")
    ports = user.status()["forward"]
    assert not closed(ports["n1"])
    assert "short-lived already" in user.types("up", "--cluster", "short-lived", expect=254)
    assert "The cluster short-lived is gone." in user.types("down")
    assert closed(ports["n1"])
    assert processes_of(tmp_path) == []
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["runtime", "state"]
    assert "Make one: raftbed cluster up" in user.types("status", expect=254)


def test_a_forward_ends_when_its_hosts_do_however_they_end(tmp_path):
    user = User(tmp_path)
    user.types("up", "--nodes", "1", "--forward")
    port = user.status()["forward"]["n1"]
    found = labs.lab_info(user.lab())
    os.kill(found.lab, signal.SIGKILL)
    until(lambda: closed(port), "nothing listens on loopback any more")
    until(lambda: processes_of(tmp_path) == [], "its process has ended")
    removed = subprocess.run(user.command("clean"), capture_output=True, text=True, env=user.environment, check=True)
    assert "1 removed." in removed.stdout
    assert not (tmp_path / "state/raftbed").exists()


def test_nothing_listens_unless_it_was_asked_for(tmp_path):
    user = User(tmp_path)
    said = user.types("up", "--nodes", "1")
    try:
        assert "127.0.0.1" not in said and "raftbed cluster exec n1 -- curl" in said
        assert user.status()["forward"] == {}
        with subprocess.Popen(
            user.command("cluster", "forward"), stdout=subprocess.PIPE, text=True, env=user.environment
        ) as forwarding:
            port = int(forwarding.stdout.readline().rpartition(":")[2])
            assert not closed(port)
            assert "already" in user.types("forward", expect=255)
            forwarding.send_signal(signal.SIGINT)
            assert forwarding.wait(30) == 0
        assert closed(port)
    finally:
        user.types("down")


def test_hosts_that_a_run_kept_are_a_cluster_too(tmp_path):
    user = User(tmp_path)
    run = user.command("run", "smoke-test", "--nodes", "3", "--time-limit", "1", "--keep")
    subprocess.run(run, cwd=tmp_path, env=user.environment, capture_output=True, timeout=120, check=True)
    try:
        assert user.status()["cluster"].startswith("smoke-test/")
        user.types("restart", "n2", "--cluster", str(tmp_path / "store/latest"))
        until(user.is_well, "n2 follows again")
    finally:
        user.types("down")
    assert not list(tmp_path.glob("store/*/*/lab"))
