"""Whichever SSH library goes the way to a host: what goes wrong on it is told in the same words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from tests_inventory import toml
from tests_machines_on_loopback import Machine, SilentServer, closed_port

from raftbed.errors import CommandError, HostError
from raftbed.hosts.blocking import paramiko_client
from raftbed.hosts.inventory_file import read_inventory
from raftbed.hosts.login import connect
from raftbed.hosts.preflight import ask
from raftbed.hosts.remote import InventoryPool

pytestmark = pytest.mark.asyncio


@contextlib.asynccontextmanager
async def machine(directory: Path) -> AsyncIterator[Machine]:
    made = Machine(directory)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def inventory(made: Machine, *, known: str | None = None, **changes: Any) -> str:
    """An inventory of one machine, as it should be but for `changes`; None leaves a key out."""
    (made.directory / "known_hosts").write_text(made.known_host if known is None else known)
    values = {"address": "127.0.0.1", "port": made.port, "user": made.user, "key": str(made.key)} | changes
    host = {key: value for key, value in values.items() if value is not None}
    file = made.directory / "cluster.toml"
    file.write_text(toml({"known_hosts": "known_hosts"}, {"n1": host}))
    return str(file)


async def sentences(file: str, *, timeout: float = 10.0) -> list[str]:
    """What logging in with asyncssh, and with paramiko, failed with."""
    entry = read_inventory(file)["n1"]
    with pytest.raises(HostError) as of_asyncssh:
        await connect(entry, timeout=timeout)
    with pytest.raises(HostError) as of_paramiko:
        await asyncio.to_thread(paramiko_client, entry, timeout=timeout)
    return [str(of_asyncssh.value), str(of_paramiko.value)]


async def the_sentence(file: str, **options: Any) -> str:
    one, other = await sentences(file, **options)
    assert one == other
    return one


async def test_a_login_that_is_refused(tmp_path):
    async with machine(tmp_path) as made:
        assert "refuses to log in 'stranger' with the key" in await the_sentence(inventory(made, user="stranger"))


async def test_a_refused_login_names_the_key_of_the_ssh_configuration(tmp_path):
    async with machine(tmp_path) as made:
        (tmp_path / "config").write_text(f"Host *\n  IdentityFile {made.key}\n  IdentitiesOnly yes\n")
        file = inventory(made, user="stranger", key=None, ssh_config="config")
        said = await the_sentence(file)
        assert f"with the agent's keys and {made.key}. Name the right" in said
        assert f"ssh-copy-id -i {made.key} -p" in said


async def test_a_host_key_that_changed(tmp_path):
    async with machine(tmp_path) as made:
        other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
        file = inventory(made, known=f"[127.0.0.1]:{made.port} {other}")
        assert "shows another SSH host key (SHA256:" in await the_sentence(file)


async def test_a_host_key_that_nobody_knows(tmp_path):
    """Here the words differ: the operator's commands do not record keys."""
    async with machine(tmp_path) as made:
        one, other = await sentences(inventory(made, known=""))
        known, _, remedy = one.partition(". If that is its key, ")
        assert "is not known: SHA256:" in known and remedy.startswith("add --accept-new-keys once")
        assert other.startswith(known) and "log in with ssh once" in other


async def test_a_closed_port(tmp_path):
    async with machine(tmp_path) as made:
        assert "nothing listens at 127.0.0.1:" in await the_sentence(inventory(made, port=closed_port()))


async def test_an_address_that_nobody_knows(tmp_path):
    async with machine(tmp_path) as made:
        assert "'nowhere.invalid' is not known here" in await the_sentence(inventory(made, address="nowhere.invalid"))


async def test_a_host_that_accepts_and_says_nothing(tmp_path):
    silent = SilentServer()
    await silent.start()
    async with machine(tmp_path) as made:
        said = await the_sentence(inventory(made, port=silent.port), timeout=0.5)
    await silent.close()
    assert "did not answer within 0.5 s. Is the host up" in said


@pytest.mark.parametrize(
    ("proxy", "timeout", "reason"),
    [("echo no way >&2; exit 1", 10.0, "no way"), ("exec sleep 60", 0.5, "no answer within 0.5 s")],
)
async def test_a_proxy_command_that_leads_nowhere(tmp_path, proxy, timeout, reason):
    async with machine(tmp_path) as made:
        said = await the_sentence(inventory(made, proxy_command=["sh", "-c", proxy]), timeout=timeout)
    assert f"leads to no SSH server: {reason}. Try it by hand: sh -c" in said


# -- a login that succeeds, and is of no use ------------------------------------------------------------------------


async def test_a_user_without_a_shell(tmp_path, monkeypatch):
    # What nologin(8) says and does to every command.
    async with machine(tmp_path) as made:
        pool = InventoryPool(read_inventory(inventory(made)))
        await pool.start()
        monkeypatch.setattr("raftbed.hosts.preflight._script", lambda: "echo This account is not available.; exit 1")
        with pytest.raises(HostError) as failure:
            await ask(pool.hosts["n1"])
        await pool.close()
    said = str(failure.value)
    assert said.startswith(
        "n1: logging in works, but no command runs there (status 1): This account is not available. "
    )
    assert "Name another `user`" in said


async def test_a_script_that_fails_is_told_by_its_beginning():
    error = CommandError(host="n1", command="sh -c 'set -e\nmany\nlines'", status=3, stderr="no space left")
    assert str(error) == "n1: `sh -c 'set -e ...` ended with status 3: no space left"
    assert error.command.endswith("lines'")
