"""Inventories that users write: what they say is taken, what is wrong in them is named with its place and remedy."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest

from raftbed.errors import HostError, UsageError
from raftbed.hosts import make_pool
from raftbed.hosts.inventory import Inventory
from raftbed.hosts.inventory_file import KEYS, Access, is_inventory, read_inventory
from raftbed.hosts.remote import RemoteHost
from raftbed.hosts.ssh_config import parse_destination
from raftbed.plan import PlanSettings, make_plan, repeat_command
from raftbed.running import settings_for_hosts


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A user without any SSH configuration."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home/.ssh").mkdir(parents=True)
    return tmp_path / "home"


def written(directory: Path, text: str) -> str:
    (directory / "cluster.toml").write_text(text)
    return str(directory / "cluster.toml")


def test_a_file_with_defaults_and_hosts(tmp_path):
    (tmp_path / "key").write_text("")
    file = written(
        tmp_path,
        """
        [defaults]
        user = "admin"
        key = "key"
        sudo = true
        python = "/opt/python/bin/python3"
        home = "/srv/raftbed"
        known_hosts = "hosts"
        power_off = ["ipmitool", "-H", "{name}.ipmi", "power", "off"]
        [[hosts]]
        name = "web-1"
        address = "192.0.2.1"
        peer = "10.0.0.1"
        labels = ["rack 4"]
        [[hosts]]
        address = "root@db.example.org:2222"
        jump = "me@gate.example.org,inner:23"
        sudo = false
        """,
    )
    inventory = read_inventory(file, Access(accept_new_keys=True, sudo_password="hush"))
    assert list(inventory) == ["web-1", "n2"]
    one, two = inventory["web-1"], inventory["n2"]
    assert (one.login, one.peer_address, one.sudo) == ("admin@192.0.2.1:22", "10.0.0.1", True)
    assert (one.key, one.known_hosts) == (tmp_path / "key", (str(tmp_path / "hosts"),))
    assert (one.python, one.home, one.labels) == ("/opt/python/bin/python3", "/srv/raftbed", ("rack 4",))
    assert one.power_off[2] == "{name}.ipmi"
    assert one.tunnel  # or its node would have to listen at both addresses
    assert (two.login, two.sudo) == ("admin@db.example.org:2222", False)
    assert two.jump == "me@gate.example.org,inner:23"
    assert two.tunnel  # who needs another host to reach SSH can hardly reach the node directly
    assert one.accept_new_keys
    assert "hush" not in repr(inventory["web-1"])


def test_a_list_of_destinations_and_the_users_ssh_configuration(home):
    (home / ".ssh/config").write_text(
        "Host alpha\n  HostName 192.0.2.7\n  User bob\n  Port 2200\n  IdentityFile ~/.ssh/alpha\n"
        "Host beta\n  HostName beta.inside\n  ProxyJump gate\n"
        "Host gamma\n  ProxyCommand nc -x proxy %h %p\n"
    )
    inventory = read_inventory("alpha,eve@beta:23,root@gamma")
    alpha, beta, gamma = inventory.values()
    assert (alpha.name, alpha.login, alpha.ssh_alias) == ("n1", "bob@192.0.2.7:2200", "alpha")
    assert alpha.identities == (str(home / ".ssh/alpha"),)
    assert alpha.known_hosts[0] == str(home / ".ssh/known_hosts")
    assert (beta.login, beta.jump, beta.tunnel) == ("eve@beta.inside:23", "gate", True)
    assert (gamma.proxy_command, gamma.tunnel) == (("nc", "-x", "proxy", "gamma", "22"), True)


GOOD = '[[hosts]]\naddress = "192.0.2.1"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hosts = 3", r"hosts: is no list of tables\. Write \[\[hosts\]\]"),
        ("", r"hosts: there are 0\. Write 1 to 50 tables"),
        ("[[hosts", r"is not TOML: .*docs/hosts\.md"),
        (GOOD + "[host]\n", r"host: there is no such table\. Tables: \[defaults\] and \[\[hosts\]\]"),
        (GOOD + 'adress = "x"\n', r"n1: adress: there is no such key\. Keys: name, port, address"),
        ("[[hosts]]\nuser = 'x'\n", r"n1: address: is missing\. Write: address ="),
        (GOOD + "port = 70000\n", r"n1: port: 70000 is no port\. Write: port = 22"),
        (GOOD + 'sudo = "yes"\n', r"n1: sudo: 'yes' is neither true nor false\. Write: sudo = true"),
        (GOOD + "user = 3\n", r"n1: user: 3 is no text"),
        (GOOD + 'peer = "db"\n', r"n1: peer: 'db' is no IPv4 address\. Write: peer ="),
        (GOOD + 'home = "data"\n', r"n1: home: 'data' is no absolute path"),
        (GOOD + 'home = "/"\n', r"n1: home: would be the root directory"),
        (GOOD + 'name = "N 1"\n', r"hosts\[1\]: name: 'N 1' is no name"),
        (
            GOOD + 'key = "gone"\n',
            r"n1: key: there is no file .*/gone\. Correct the path; it counts from",
        ),
        (GOOD + 'jump = "a b"\n', r"n1: jump: 'a b' is no destination"),
        (GOOD + 'jump = "a"\nproxy_command = ["nc"]\n', r"n1: jump: stands beside proxy_command"),
        (GOOD + 'proxy_command = "nc"\n', r"n1: proxy_command: 'nc' is no list of texts"),
        (GOOD + 'name = "a"\n' + GOOD.replace("1", "2") + 'name = "a"\n', r"a: name: is given twice"),
        (GOOD + GOOD, r"n2: address: 192\.0\.2\.1 is that of n1\. Give each host an address of its own"),
        ('[defaults]\npeer = "10.0.0.1"\n' + GOOD, r"defaults: peer: differs from host to host"),
        ("[defaults]\nport = true\n" + GOOD, r"defaults: port: True is no port"),
    ],
)
def test_what_is_wrong_is_named_with_file_host_key_and_remedy(tmp_path, text, sentence):
    file = written(tmp_path, text)
    with pytest.raises(UsageError, match=sentence) as failure:
        read_inventory(file)
    assert str(failure.value).startswith(f"{file}: ")
    assert failure.value.remedy


def test_a_missing_file_and_a_malformed_list(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_inventory(str(tmp_path / "none.toml"))
    for text, sentence in (("a@b@c,d", "is no destination"), ("root@a:99999", "no port 99999"), ("a,a", "named twice")):
        with pytest.raises(UsageError, match=sentence):
            read_inventory(text)


@pytest.mark.parametrize("text", ["-oProxyCommand=id@x", "root@-x", "a;b", "a b", "", "root@", "a:", "[::1]:22"])
def test_no_destination_can_be_an_option_or_a_command(text):
    with pytest.raises(UsageError):
        parse_destination(text)


def test_a_host_with_one_address_is_reached_directly_unless_told_otherwise(tmp_path):
    assert not read_inventory(written(tmp_path, GOOD))["n1"].tunnel
    assert read_inventory(written(tmp_path, GOOD + "tunnel = true\n"))["n1"].tunnel
    assert not read_inventory(written(tmp_path, GOOD + 'peer = "10.0.0.1"\ntunnel = false\n'))["n1"].tunnel


def test_what_is_an_inventory_and_what_is_a_kind():
    assert all(map(is_inventory, ("cluster.toml", "/x/y.toml", "root@a", "a,b")))
    assert not any(map(is_inventory, ("local", "docker", "vagrant", "simulated")))


def test_every_key_is_documented():
    text = (Path(__file__).resolve().parent.parent.parent / "docs/hosts.md").read_text(encoding="utf-8")
    assert not [key for key in KEYS if f"| `{key}` |" not in text]


def test_the_example_in_the_documents_is_one(tmp_path, home):
    text = (Path(__file__).resolve().parent.parent.parent / "docs/hosts.md").read_text(encoding="utf-8")
    (home / ".ssh/cluster").write_text("")
    (home / ".ssh/config").write_text("Host db3\n  HostName 192.0.2.13\n")
    (example,) = re.findall(r"^```toml\n(\[defaults\].*?)^```$", text, re.MULTILINE | re.DOTALL)
    inventory = read_inventory(written(tmp_path, example))
    assert [entry.login for entry in inventory.values()] == [
        "admin@192.0.2.11:22",
        "admin@192.0.2.12:22",
        "admin@192.0.2.13:22",
    ]
    assert list(inventory) == ["n1", "n2", "third"]


# -- plans ----------------------------------------------------------------------------------------------------------


def test_a_run_takes_all_hosts_of_its_inventory_or_the_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "".join(f'[[hosts]]\naddress = "192.0.2.{number}"\n' for number in (1, 2, 3)))
    settings = settings_for_hosts(PlanSettings(test="smoke-test", hosts="cluster.toml"))
    plan = make_plan(settings, seed=1)
    assert plan.nodes == ("n1", "n2", "n3")
    assert plan.hosts == str(tmp_path / "cluster.toml")  # it can be repeated from anywhere
    assert "--nodes 3" in (repeat_command(plan) or "") and f"--hosts {plan.hosts}" in (repeat_command(plan) or "")
    fewer = settings_for_hosts(PlanSettings(test="smoke-test", hosts="cluster.toml", nodes=2))
    assert make_plan(fewer, seed=1).nodes == ("n1", "n2")
    with pytest.raises(UsageError, match=r"has 3 hosts, and the run 4 nodes\. Choose at most: --nodes 3"):
        settings_for_hosts(PlanSettings(test="smoke-test", hosts="cluster.toml", nodes=4))


def test_nodes_are_called_as_the_inventory_calls_its_hosts(tmp_path):
    file = written(tmp_path, "".join(f'[[hosts]]\nname = "{name}"\naddress = "{name}.org"\n' for name in "abc"))
    plan = make_plan(settings_for_hosts(PlanSettings(test="smoke-test", hosts=file)), seed=1)
    assert plan.nodes == ("a", "b", "c")
    pool = make_pool(file, plan.nodes, tmp_path)
    assert list(pool.inventory) == ["a", "b", "c"]  # type: ignore[attr-defined]
    # A plan with other names takes the hosts in their order.
    pool = make_pool(file, ["n1", "n2"], tmp_path)
    assert [(entry.name, entry.address) for entry in pool.inventory.values()] == [  # type: ignore[attr-defined]
        ("n1", "a.org"),
        ("n2", "b.org"),
    ]
    with pytest.raises(UsageError, match="4 nodes, and its inventory 3 hosts"):
        make_pool(file, ["n1", "n2", "n3", "n4"], tmp_path)


def test_what_is_saved_can_be_loaded_and_holds_no_password(tmp_path):
    file = written(tmp_path, GOOD + 'jump = "gate"\npower_on = ["on", "{name}"]\nsudo = true\n')
    inventory = read_inventory(file, Access(sudo_password="hush"))
    inventory.save(tmp_path / "saved")
    assert "hush" not in (tmp_path / "saved").read_text()
    assert (tmp_path / "saved").stat().st_mode & 0o777 == 0o600
    loaded = Inventory.load(tmp_path / "saved")
    assert loaded["n1"].power_on == ("on", "{name}")
    assert (loaded["n1"].jump, loaded["n1"].sudo, loaded["n1"].sudo_password) == ("gate", True, "")


async def test_power_that_is_not_ours_is_not_switched(tmp_path):
    host = RemoteHost(read_inventory(written(tmp_path, GOOD))["n1"])
    with pytest.raises(HostError, match=r"n1: the power of this machine is not raftbed's to switch.*power_off"):
        await host.crash()
    switch = RemoteHost(
        read_inventory(written(tmp_path, GOOD + 'power_off = ["sh", "-c", "echo no such plug >&2; exit 3"]'))["n1"]
    )
    with pytest.raises(HostError, match="n1: power_off: 'sh' ended with status 3: no such plug"):
        await switch.crash()


async def test_a_power_command_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    switch = RemoteHost(
        read_inventory(written(tmp_path, GOOD + f'power_off = ["sh", "-c", "echo $$ > {begun}; exec sleep 1000"]'))[
            "n1"
        ]
    )
    crash = asyncio.ensure_future(switch.crash())
    async with asyncio.timeout(20):
        while not (begun.exists() and begun.read_text()):
            await asyncio.sleep(0.01)
        crash.cancel()
        await asyncio.wait([crash])
    assert crash.cancelled()
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)
