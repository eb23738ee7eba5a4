# ruff: noqa: ASYNC220, ASYNC221, ASYNC240  # a test may wait for the local disk and for processes
"""Whatever can be wrong with a machine: one sentence that names it, a remedy, exit code 255, and nothing left there.

Machines are SSH servers on loopback (`tests_machines_on_loopback`); the command line is run as a user would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from tests_inventory import toml
from tests_machines_on_loopback import Machine, closed_port

from raftbed.errors import HostError
from raftbed.hosts.inventory_file import Access, read_inventory
from raftbed.hosts.preflight import Facts, Needs, preflight, problems_of, warnings_of
from raftbed.hosts.remote import InventoryPool

RAFTBED = str(Path(sys.executable).with_name("raftbed"))
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a file system or to own what it makes")

PASSWORDLESS_SUDO = 'while [ "$1" != -- ] && [ "$1" != true ]; do shift; done; [ "$1" = -- ] && shift; exec "$@"'
ASKING_SUDO = """
case " $* " in *" -n "*) echo "sudo: a password is required" >&2; exit 1 ;; esac
read -r given
[ "$given" = "open sesame" ] || { echo "sudo: 1 incorrect password attempt" >&2; exit 1; }
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""
NOBODY = 'case "$*" in -u) echo 1001 ;; *) echo ann ;; esac'


def command(*arguments: str) -> list[str]:
    """The command line of a run."""
    return [RAFTBED, "run", "smoke-test", "--time-limit", "1", "--quiet", *arguments]


async def ran(directory: Path, *arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code of `raftbed run smoke-test`, and what it wrote to standard error."""
    process = await asyncio.create_subprocess_exec(
        *command(*arguments),
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "HOME": str(directory), **(environment or {})},
    )
    _, said = await asyncio.wait_for(process.communicate(), 90)
    return process.returncode or 0, said.decode()


@contextlib.asynccontextmanager
async def machine(directory: Path, **options: Any) -> AsyncIterator[Machine]:
    made = Machine(directory, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def inventory(made: Machine, **changes: Any) -> Path:
    """An inventory of one machine, as it should be but for `changes`; None leaves a key out."""
    (made.directory / "known_hosts").write_text(made.known_host)
    host = {
        "address": "127.0.0.1",
        "port": made.port,
        "user": made.user,
        "key": str(made.key),
        "known_hosts": "known_hosts",
        "python": sys.executable,
        "home": str(made.home),
    } | changes
    file = made.directory / "cluster.toml"
    file.write_text(toml({}, {"n1": {key: value for key, value in host.items() if value is not None}}))
    return file


@pytest.fixture(scope="module", autouse=True)
def silent(tmp_path_factory) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The port of a machine that accepts and says nothing, and a run on it.

    The run gives the machine its ten seconds, in which it only waits: so it is begun before all tests of this module.
    """
    directory = tmp_path_factory.mktemp("silent")
    with socket.create_server(("127.0.0.1", 0)) as server:  # the kernel accepts, and nobody reads
        port = server.getsockname()[1]
        process = subprocess.Popen(
            command("--hosts", str(inventory(Machine(directory), port=port))),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HOME": str(directory)},
        )
        try:
            yield port, process
        finally:
            process.kill()
            process.communicate()


def the_sentence(outcome: tuple[int, str]) -> str:
    """What a run said that could not be run: one sentence and its remedy, on two lines at most."""
    code, said = outcome
    assert code == 255, said
    assert said.startswith("raftbed: n1: ")
    assert len(said.splitlines()) <= 2, said
    assert "Traceback" not in said
    return " ".join(said.split())


async def test_a_wrong_key(tmp_path):
    async with machine(tmp_path) as made:
        other = tmp_path / "other"
        shutil.copy(made.key, other)
        made.client_key = asyncssh.generate_private_key("ssh-ed25519")  # the only one that it lets in from now on
        said = the_sentence(await ran(tmp_path, "--hosts", str(inventory(made, key=str(other)))))
    assert re.search(rf"127\.0\.0\.1:{made.port} refuses to log in 'root' with the key {other}\.", said)
    assert f"ssh-copy-id -i {other} -p {made.port} root@127.0.0.1" in said


async def test_a_wrong_user(tmp_path):
    async with machine(tmp_path) as made:
        said = the_sentence(await ran(tmp_path, "--hosts", str(inventory(made, user="stranger"))))
    assert "refuses to log in 'stranger'" in said
    assert "Name the right `user` and `key`" in said


async def test_a_user_who_is_not_root(tmp_path):
    async with machine(tmp_path, user="ann", programs={"id": NOBODY}) as made:
        said = the_sentence(await ran(tmp_path, "--hosts", str(inventory(made))))
    assert "commands run as 'ann', who is not root. Log in as root, or write into the inventory: sudo = true" in said


@pytest.mark.parametrize(
    ("script", "reason", "remedy"),
    [
        ('echo "sh: 1: exec: sudo: not found" >&2; exit 127', "sudo: not found", "Install sudo there"),
        ('echo "sudo: a password is required" >&2; exit 1', "a password is required", "--ask-sudo-password"),
        ('echo "sudo: ann is not in the sudoers file." >&2; exit 1', "not in the sudoers file", "NOPASSWD"),
    ],
)
async def test_no_sudo(tmp_path, script, reason, remedy):
    async with machine(tmp_path, user="ann", programs={"sudo": script}) as made:
        said = the_sentence(await ran(tmp_path, "--hosts", str(inventory(made, sudo=True))))
    assert "n1: sudo refuses 'ann': " in said
    assert reason in said
    assert remedy in said


async def test_no_python(tmp_path):
    async with machine(tmp_path) as made:
        said = the_sentence(await ran(tmp_path, "--hosts", str(inventory(made, python="python9"))))
    assert "it has no python9." in said
    assert "apt-get install python3" in said or re.search(r'python = "python3\.1\d"', said)


async def test_an_old_python(tmp_path):
    async with machine(tmp_path, programs={"python3": "echo cpython 3 9 2"}) as made:
        said = the_sentence(await ran(tmp_path, "--hosts", str(inventory(made, python="python3"))))
    assert "its python3 is cpython 3.9.2; nodes need CPython 3.11 or later." in said


@AS_ROOT
async def test_a_full_disk(tmp_path):
    script = f'mount -t tmpfs -o size=1m tmpfs "{tmp_path}/home" && cat /dev/zero >"{tmp_path}/home/x" 2>/dev/null; '
    script += 'sh -c "$1"'
    async with machine(tmp_path, wrapper=["unshare", "--mount", "sh", "-c", script, "sh"]) as made:
        made.home.mkdir()
        said = the_sentence(await ran(tmp_path, "--hosts", str(inventory(made))))
    assert f"0 MiB are free below {made.home}, and a run needs 100 MiB. Make room there" in said


async def test_a_closed_port(tmp_path):
    port = closed_port()
    async with machine(tmp_path) as made:
        said = the_sentence(await ran(tmp_path, "--hosts", str(inventory(made, port=port))))
    assert f"nothing listens at 127.0.0.1:{port}: Connection refused. Is its SSH server running" in said


async def test_a_changed_host_key(tmp_path):
    async with machine(tmp_path) as made:
        file = inventory(made)
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{made.port} {other}")
        for arguments in ((), ("--accept-new-keys",)):  # a changed key is not a new one
            said = the_sentence(await ran(tmp_path, "--hosts", str(file), *arguments))
            assert "shows another SSH host key (SHA256:" in said
            assert f"ssh-keygen -f {tmp_path}/known_hosts -R '[127.0.0.1]:{made.port}'" in said
        assert (tmp_path / "known_hosts").read_text() == f"[127.0.0.1]:{made.port} {other}"
    assert made.commands == []


async def test_a_new_host_key_is_refused_until_new_keys_are_accepted(tmp_path):
    async with machine(tmp_path) as made:
        file = inventory(made, python="python9")
        (tmp_path / "known_hosts").write_text("# no end of line")
        said = the_sentence(await ran(tmp_path, "--hosts", str(file)))
        assert "host key of 127.0.0.1" in said and "is not known: SHA256:" in said and "--accept-new-keys" in said
        assert "it has no python9" in the_sentence(await ran(tmp_path, "--hosts", str(file), "--accept-new-keys"))
        assert (tmp_path / "known_hosts").read_text().splitlines() == ["# no end of line", made.known_host.strip()]
        assert "it has no python9" in the_sentence(await ran(tmp_path, "--hosts", str(file)))


def test_a_machine_that_accepts_and_says_nothing(silent):
    port, process = silent
    _, said = process.communicate(timeout=90)
    said = the_sentence((process.returncode, said))
    assert f"SSH at 127.0.0.1:{port} did not answer within 10 s. Is the host up" in said


async def test_a_machine_that_hangs_in_the_middle_of_a_command(tmp_path, monkeypatch):
    monkeypatch.setattr("raftbed.hosts.preflight._TIMEOUT", 0.5)
    async with machine(tmp_path, deaf_to=["preflight"]) as made:
        pool = InventoryPool(read_inventory(str(inventory(made))))
        await pool.start()
        with pytest.raises(HostError, match=r"^n1: it did not answer a simple question within 0.5 s\. It hangs, or"):
            await preflight(pool.hosts, Needs())
        await pool.close()


async def test_a_proxy_command_that_fails_is_quoted(tmp_path):
    async with machine(tmp_path) as made:
        proxy = ["sh", "-c", "echo no route through the wall >&2; exit 1"]
        said = the_sentence(await ran(tmp_path, "--hosts", str(inventory(made, proxy_command=proxy))))
    assert "its proxy command leads to no SSH server: no route through the wall. Try it by hand: sh -c" in said


async def test_a_machine_behind_a_jump_host(tmp_path):
    for name in ("gate", "inner"):
        (tmp_path / name).mkdir()
    async with machine(tmp_path / "gate") as gate, machine(tmp_path / "inner") as inner:
        inner.client_key, inner.key = gate.client_key, gate.key  # one key for both, as ssh would use it
        file = inventory(inner, jump=f"root@127.0.0.1:{gate.port}", python="python9")
        said = await ran(tmp_path, "--hosts", str(file))
        assert f"n1 (jump host root@127.0.0.1:{gate.port}): the SSH host key of 127.0.0.1:{gate.port} is not known" in (
            " ".join(said[1].split())
        )
        (tmp_path / "inner/known_hosts").write_text(gate.known_host + inner.known_host)
        assert "it has no python9" in the_sentence(await ran(tmp_path, "--hosts", str(file)))
        assert gate.commands == []  # it leads, and runs nothing
        code, said = await ran(tmp_path, "--hosts", str(inventory(inner, jump=f"root@127.0.0.1:{closed_port()}")))
        assert code == 255
        assert "(jump host root@127.0.0.1:" in said and "nothing listens at 127.0.0.1:" in said


async def test_an_encrypted_key_needs_the_agent_or_somebody_to_unlock_it(tmp_path):
    async with machine(tmp_path) as made:
        made.key.write_bytes(made.client_key.export_private_key(passphrase="open sesame"))
        (tmp_path / "key.pub").write_bytes(made.client_key.export_public_key())
        file = inventory(made, python="python9")
        said = the_sentence(await ran(tmp_path, "--hosts", str(file), environment={"SSH_AUTH_SOCK": ""}))
        assert (
            f"the private key {made.key} is encrypted, and the agent does not have it. Run: ssh-add {made.key}" in said
        )
        if shutil.which("ssh-agent") is None or shutil.which("ssh-add") is None:
            pytest.skip("needs ssh-agent (apt-get install openssh-client)")
        agent = {"SSH_AUTH_SOCK": str(tmp_path / "agent")}
        process = subprocess.Popen(["ssh-agent", "-D", "-a", agent["SSH_AUTH_SOCK"]], stdout=subprocess.DEVNULL)
        try:
            while not os.path.exists(agent["SSH_AUTH_SOCK"]):
                await asyncio.sleep(0.02)
            plain = made.client_key.export_private_key()
            subprocess.run(["ssh-add", "-q", "-"], input=plain, env={**os.environ, **agent}, check=True)
            assert "it has no python9" in the_sentence(await ran(tmp_path, "--hosts", str(file), environment=agent))
        finally:
            process.terminate()
            process.wait()


async def test_all_problems_of_all_machines_are_told_at_once(tmp_path):
    async with machine(tmp_path) as made:
        inventory(made)
        base = {"address": "127.0.0.1", "user": "root", "key": "key", "known_hosts": "known_hosts"}
        hosts = {
            "n1": {**base, "port": closed_port(), "peer": "10.0.0.1"},
            "n2": {**base, "port": made.port, "peer": "10.0.0.2", "user": "stranger"},
        }
        (tmp_path / "two.toml").write_text(toml({}, hosts))
        code, said = await ran(tmp_path, "--hosts", "two.toml")
        assert code == 255
        assert said.startswith("raftbed: 2 of 2 hosts cannot be used as they are:\n  n1: nothing listens at")
        assert "\n  n2: SSH at 127.0.0.1" in said


# -- sudo, with which a machine works ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "password"), [(PASSWORDLESS_SUDO, ""), (PASSWORDLESS_SUDO, "unneeded"), (ASKING_SUDO, "open sesame")]
)
async def test_commands_and_files_go_through_sudo_and_passwords_never_stand_in_a_command(tmp_path, script, password):
    async with machine(tmp_path, user="ann", programs={"sudo": script}) as made:
        pool = InventoryPool(read_inventory(str(inventory(made, sudo=True)), Access(sudo_password=password)))
        await pool.start()
        host = pool.hosts["n1"]
        assert (await host.run(["cat"], stdin=b"input\n")).stdout == "input\n"
        await host.put(b"content", f"{host.home}/file")
        assert (made.home / "file").read_bytes() == b"content"
        assert await host.get(f"{host.home}/file", tmp_path / "back")
        await pool.close()
        assert all(command.startswith(("exec sudo ", "sudo ")) for command in made.commands)
        assert not [command for command in made.commands if password and password in command]
    assert not password or password not in repr(pool.inventory["n1"])


async def test_a_wrong_sudo_password_is_told_before_anything_runs(tmp_path):
    async with machine(tmp_path, user="ann", programs={"sudo": ASKING_SUDO}) as made:
        pool = InventoryPool(read_inventory(str(inventory(made, sudo=True)), Access(sudo_password="guess")))
        with pytest.raises(HostError, match=r"sudo refuses 'ann': sudo: 1 incorrect password attempt\. Is"):
            await pool.start()


async def test_a_password_needs_somebody_to_type_it(tmp_path):
    async with machine(tmp_path) as made:
        code, said = await ran(tmp_path, "--hosts", str(inventory(made)), "--ask-sudo-password")
    assert code == 254
    assert "--ask-sudo-password needs a terminal" in said


# -- what a machine says of itself ------------------------------------------------------------------------------------


class Described:
    """As much of a host as preflight looks at."""

    name, address, home, python, shares_interpreter = "n1", "10.0.0.1", "/var/lib/raftbed", "python3", False


SOUND = {
    "user": ["0 root"],
    "python": ["cpython 3 11 2"],
    "free": ["9000000"],
    "tool": ["nft", "ip"],
    "address": ["127.0.0.1", "10.0.0.1"],
}
NEEDS = Needs(
    ports=(8400,),
    faults=("partition",),
    clean="raftbed cluster clean --hosts c.toml",
    clusters=lambda: {"raftbed mine 0a1b2c3d": "raftbed cluster down --cluster mine"},
)


def problems(**changes: list[str]) -> list[str]:
    return [str(problem) for problem in problems_of(Described(), Facts({**SOUND, **changes}), NEEDS)]


def test_a_sound_machine_has_no_problems():
    assert problems() == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"address": ["127.0.0.1", "192.168.5.9"]}, r"at 10.0.0.1, which is no .* own \(192.168.5.9\)\. .* peer ="),
        ({"taken": ["8400"]}, r"port 8400 is in use there\. .* ss -ltnp"),
        ({"taken": ["8400"], "node": ["77"]}, r"a node is running there already \(process 77\)\. .* clean --hosts c"),
        ({"node": ["77"], "cluster": ["raftbed mine 0a1b2c3d"]},
         r"a node of the cluster 'raftbed mine 0a1b2c3d' is running .* cluster down --cluster mine$"),
        ({"node": ["77"], "cluster": ["raftbed theirs 1"]},
         r"of the cluster 'raftbed theirs 1' is running .*Wait for its run .* raftbed cluster down; .* clean --hosts"),
        ({"fault": ["f01.undo", "raftbed_f01"]}, r"faults of another run .* \(f01.undo, raftbed_f01\)\. .* clean"),
        ({"tool": []}, r"none of nft, iptables and ip.* apt-get install nftables"),
        ({"missing": ["setsid"]}, r"the program setsid is missing\. .* apt-get install util-linux"),
        ({"unwritable": ["Read-only file system"]}, r"/var/lib/raftbed cannot be written: Read-only file system\."),
        ({"free": ["60000"]}, r"58 MiB are free below /var/lib/raftbed, and a run needs 100 MiB\."),
        ({"python": ["cpython 3 9 2"], "other-python": ["python3.12"]}, r'cpython 3\.9\.2.* python = "python3\.12"'),
        ({"python": ["pypy 3 11 2"]}, r"its python3 is pypy 3\.11\.2; nodes need CPython 3\.11"),
    ],
)  # fmt: skip
def test_each_problem_is_one_sentence_with_its_remedy(changes, sentence):
    (found,) = problems(**changes)
    assert found.startswith("n1: ")
    assert re.search(sentence, found), found


@pytest.mark.parametrize(("offset", "uncertainty", "told"), [(0.2, 0.0, False), (1.2, 1.0, False), (-90.0, 1.0, True)])
def test_a_clock_that_is_off_is_told_as_far_as_one_can_know(offset, uncertainty, told):
    warnings = list(warnings_of(Described(), Facts({}, offset, uncertainty)))
    assert bool(warnings) == told
    assert not told or "n1: its clock is 90.0 s behind the controller's" in warnings[0]
