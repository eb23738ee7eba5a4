"""A user without a name or a home, as in many a container: what needs neither works, the rest says what to do."""

import asyncio
import getpass
import os
import subprocess
import sys

import asyncssh
import pytest

from raftbed.errors import DeployError, HostError, StoreError, UsageError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.inventory_file import read_inventory
from raftbed.hosts.local_user import ensure_name_and_home
from raftbed.hosts.login import connect
from raftbed.hosts.ssh_config import resolve
from raftbed.operating.clusters import new_directory
from raftbed.wheelhouse import default_cache


@pytest.fixture
def nameless(monkeypatch):
    """A user whom neither the environment nor the password database knows."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", _unknown)


@pytest.fixture
def homeless(nameless, monkeypatch, tmp_path):
    """One without a home, too."""
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def _unknown(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")


async def test_a_host_with_a_key_and_a_user_of_its_own_needs_neither(homeless, monkeypatch, tmp_path):
    monkeypatch.setenv("LOGNAME", "")  # so that they are taken back afterwards
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("HOME")
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(tmp_path / "key")
    public = key.export_public_key().decode()
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    entry = InventoryEntry(
        name="n1", address="127.0.0.1", port=port, user="root", key=tmp_path / "key", host_key=public
    )
    with pytest.raises(HostError, match=r"failed: Connection (lost|closed)"):  # it was connected, and nothing missed
        await connect(entry)
    server.close()


def test_libraries_that_insist_on_a_name_get_a_number(nameless, monkeypatch):
    monkeypatch.setenv("LOGNAME", "")
    ensure_name_and_home()
    assert getpass.getuser() == str(os.geteuid())


def test_a_number_is_nobodys_login(nameless, monkeypatch):
    monkeypatch.setenv("LOGNAME", "")
    entry = InventoryEntry(name="n1", address="a.example")
    assert resolve(entry, user="ada").user == "ada"
    monkeypatch.setenv("LOGNAME", "")
    with pytest.raises(UsageError, match=r"a\.example: nobody says whom to log in as"):
        resolve(entry)


def test_no_directory_is_called_tilde(homeless, tmp_path):
    with pytest.raises(StoreError, match="XDG_STATE_HOME"):
        new_directory("default")
    with pytest.raises(DeployError, match="XDG_CACHE_HOME"):
        default_cache()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hosts", ["~/cluster.toml", "~nobody-of-that-name/cluster.toml"])
def test_a_home_that_is_not_known_is_told_with_the_path(homeless, hosts):
    with pytest.raises(UsageError, match="the home directory that it begins with is not known"):
        read_inventory(hosts)


def test_commands_that_need_no_home_work(tmp_path):
    # Root's own name is known to the system: a user namespace has a user who has none.
    environment = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    line = ["unshare", "--user", "--map-user=54321", sys.executable, "-m", "raftbed.cli", "clean"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    if "unshare" in done.stderr:
        pytest.skip(f"util-linux: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "Nothing was left behind.\n")
