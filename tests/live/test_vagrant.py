"""The Vagrantfile: Vagrant itself finds nothing wrong with it, for any number of machines and for both providers."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from tests_inventory import Relay
from tests_machine import why_no_local_hosts

from raftbed.errors import HostError
from raftbed.hosts import vagrant
from raftbed.hosts.local import LocalPool
from raftbed.hosts.prerequisites import find_program
from raftbed.hosts.vagrant import read_states

ROOT = Path(__file__).resolve().parent.parent.parent
needs_vagrant = pytest.mark.skipif(not find_program("vagrant"), reason="needs vagrant (apt-get install vagrant)")


def call(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Vagrant, with a home and a state of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAFTBED_", "VAGRANT_"))}
    own = {"VAGRANT_HOME": str(tmp_path / "home"), "VAGRANT_DOTFILE_PATH": str(tmp_path / "state")}
    return subprocess.run(
        ["vagrant", *arguments],
        env={**kept, **own, "VAGRANT_CWD": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@needs_vagrant
@pytest.mark.parametrize("provider", ["libvirt", "virtualbox"])
def test_vagrant_finds_nothing_wrong_with_it(tmp_path, provider):
    whole = call(tmp_path, "validate", VAGRANT_DEFAULT_PROVIDER=provider)
    if whole.returncode == 0:
        assert "validated successfully" in whole.stdout
        return
    # The provider is not installed here: what concerns it alone is left out, and Vagrant says so.
    said = whole.stdout + whole.stderr
    assert "isn't usable on this system" in said or f"provider '{provider}' could not be found" in said, said
    rest = call(tmp_path, "validate", "--ignore-provider", VAGRANT_DEFAULT_PROVIDER=provider)
    assert rest.returncode == 0, rest.stdout + rest.stderr
    assert "Ignoring provider config for validation" in rest.stdout


@needs_vagrant
@pytest.mark.parametrize("nodes", ["1", "9"])
def test_it_has_as_many_machines_as_one_asks_for(tmp_path, nodes):
    if "libvirt" not in call(tmp_path, "plugin", "list").stdout:
        pytest.skip("needs a provider (apt-get install vagrant-libvirt)")
    status = call(tmp_path, "status", "--machine-readable", RAFTBED_NODES=nodes, VAGRANT_DEFAULT_PROVIDER="libvirt")
    assert list(read_states(status.stdout)) == [f"n{number}" for number in range(1, int(nodes) + 1)]


@needs_vagrant
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RAFTBED_NODES", "10", 'RAFTBED_NODES is "10"; choose a number from 1 to 9.'),
        ("RAFTBED_MEMORY", "lots", 'RAFTBED_MEMORY is "lots"; choose a number from 128'),
        ("RAFTBED_NETWORK", "10.0.0.0/8", "write the first three numbers"),
        ("RAFTBED_DRIVER", "xen", "choose kvm or qemu"),
    ],
)
def test_a_wrong_size_is_named(tmp_path, name, value, message):
    refused = call(tmp_path, "validate", "--ignore-provider", **{name: value})
    assert refused.returncode != 0
    assert message in refused.stderr


# -- machines that VirtualBox would make, without VirtualBox ----------------------------------------------------------

FAKE = """#!/bin/sh
case $1 in
    status) printf '1,n1,state,running\\n1,n2,state,running\\n' ;;
    ssh-config) cat {config} ;;
    *) echo "not asked for: $*" >&2; exit 1 ;;
esac
"""
SSH_CONFIG = """Host {name}
  HostName 127.0.0.1
  User root
  Port {port}
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile {key}
  IdentitiesOnly yes
  LogLevel FATAL
"""


@pytest.mark.live
@pytest.mark.skipif(bool(why_no_local_hosts()), reason=why_no_local_hosts() or "it can")
async def test_machines_behind_forwarded_ports_meet_on_their_second_interface(tmp_path, monkeypatch):
    """Local hosts stand in for machines: the way in is a port of loopback, and eth1 is a network that leads nowhere."""
    machines = LocalPool(["n1", "n2"], tmp_path / "machines")
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(machines.close)
        await machines.start()
        config = ""
        for number, (name, machine) in enumerate(machines.hosts.items(), start=11):
            await machine.run(["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "nowhere"])
            await machine.run(["ip", "address", "add", f"192.168.56.{number}/24", "dev", "eth1"])
            await machine.run(["ip", "link", "set", "eth1", "up"])
            relay = Relay(machines, machine.address)
            stack.push_async_callback(relay.close)
            await relay.start()
            config += SSH_CONFIG.format(name=name, port=relay.port, key=machine.entry.key)
        (tmp_path / "Vagrantfile").touch()
        (tmp_path / "ssh-config").write_text(config)
        (tmp_path / "vagrant").write_text(FAKE.format(config=tmp_path / "ssh-config"))
        (tmp_path / "vagrant").chmod(0o755)
        monkeypatch.setenv("VAGRANT_CWD", str(tmp_path))
        monkeypatch.setattr(vagrant, "find_program", lambda name: str(tmp_path / name))
        pool = vagrant.VagrantPool(["n1", "n2"], tmp_path / "lab")
        stack.push_async_callback(pool.close)
        await pool.start()
        assert [host.address for host in pool.hosts.values()] == ["192.168.56.11", "192.168.56.12"]
        assert [(await host.run(["hostname"])).stdout for host in pool.hosts.values()] == ["n1\n", "n2\n"]
        # Nobody but the machine itself gets to its private network here: SSH leads there.
        way = await pool.hosts["n1"].endpoint(8400)
        assert way.unix_socket
        assert (way.address, way.listen) == ("192.168.56.11:8400", "192.168.56.11")
        # Once it is known, another key at the same port is refused.
        (known,) = (tmp_path / ".vagrant/raftbed").glob("known_hosts-n1-*")
        stranger = machines.inventory.entry("n2").host_key.split()
        known.write_text(f"{known.read_text().split()[0]} {stranger[0]} {stranger[1]}\n")
        await pool.close()
        again = vagrant.VagrantPool(["n1", "n2"], tmp_path / "again")
        stack.push_async_callback(again.close)
        with pytest.raises(HostError, match=r"n1: .* key"):
            await again.start()
