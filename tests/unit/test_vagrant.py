"""Which machines of a Vagrantfile become hosts, and at which addresses they meet: told without any machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raftbed.errors import HostError
from raftbed.hosts import vagrant
from raftbed.hosts.inventory_file import clean_command
from raftbed.hosts.vagrant import VagrantPool, find_vagrantfile, peer_addresses, read_interfaces, read_states

VIRTUALBOX = """address eth0 10.0.2.15/24
address eth1 192.168.56.{0}/21
default eth0
way-in 10.0.2.2 50022 10.0.2.15 22
"""
LIBVIRT = """address eth0 192.168.121.{0}7/24
address eth1 192.168.56.{0}/24
default eth0
way-in 192.168.121.1 41234 192.168.121.{0}7 22
"""


def machines(text: str, *numbers: int) -> dict:
    return {f"n{number}": read_interfaces(text.format(number)) for number in numbers}


@pytest.mark.parametrize("provider", [VIRTUALBOX, LIBVIRT], ids=["virtualbox", "libvirt"])
def test_peers_meet_on_the_private_network(provider):
    assert peer_addresses(machines(provider, 1, 2, 3)) == {f"n{n}": f"192.168.56.{n}" for n in (1, 2, 3)}


def test_the_way_in_is_no_network_for_peers_even_where_its_addresses_differ():
    alone = "address eth0 192.168.121.{0}/24\nway-in 192.168.121.1 4 192.168.121.{0} 22\n"
    with pytest.raises(HostError, match=r"n1: eth0 192.168.121.1/24; n2: .* config.vm.network :private_network"):
        peer_addresses(machines(alone, 1, 2))


def test_the_interface_of_the_default_route_is_no_network_for_peers():
    text = "address eth0 10.0.2.15/24\naddress eth1 10.9.0.{0}/24\ndefault eth1\nway-in\n"
    with pytest.raises(HostError, match="share no network"):
        peer_addresses(machines(text, 1, 2))


def test_an_address_that_is_on_every_machine_is_nat():
    text = "address eth0 10.0.2.15/24\naddress eth2 10.7.0.{0}/16\n"
    assert peer_addresses(machines(text, 1, 2)) == {"n1": "10.7.0.1", "n2": "10.7.0.2"}


def test_a_network_that_one_machine_lacks_is_passed_over():
    found = {
        "n1": read_interfaces("address eth1 10.1.0.1/24\naddress eth2 10.2.0.1/24\n"),
        "n2": read_interfaces("address eth1 10.3.0.2/24\naddress eth2 10.2.0.2/24\n"),
    }
    assert peer_addresses(found) == {"n1": "10.2.0.1", "n2": "10.2.0.2"}


def test_states_are_read_from_the_machine_readable_status():
    said = (
        "1795648624,n1,metadata,provider,libvirt\n1795648624,n1,provider-name,libvirt\n"
        "1795648624,n1,state,running\n1795648624,n1,state-human-short,running\n"
        "1795648624,n2,state,not_created\n1795648624,,ui,info,Current machine states:\\n\\nn1 state,x\n"
    )
    assert read_states(said) == {"n1": "running", "n2": "not_created"}


def test_the_vagrantfile_is_found_upwards_or_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.delenv("VAGRANT_CWD", raising=False)
    monkeypatch.delenv("VAGRANT_VAGRANTFILE", raising=False)
    (tmp_path / "clone/deep/down").mkdir(parents=True)
    (tmp_path / "clone/Vagrantfile").touch()
    monkeypatch.chdir(tmp_path / "clone/deep/down")
    assert find_vagrantfile() == tmp_path / "clone"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HostError, match=r"there is no Vagrantfile in .* VAGRANT_CWD"):
        find_vagrantfile()
    monkeypatch.setenv("VAGRANT_CWD", str(tmp_path / "clone"))
    assert find_vagrantfile() == tmp_path / "clone"


def test_what_a_run_left_on_machines_ends_with_their_reboot():
    assert clean_command("vagrant") == "vagrant reload"
    assert clean_command("docker") == "raftbed clean"


# -- a pool with a Vagrant that is a shell script -------------------------------------------------------------------


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A program in Vagrant's place: what it prints for a command; what it was asked lies in "asked"."""
    (tmp_path / "Vagrantfile").touch()
    monkeypatch.setenv("VAGRANT_CWD", str(tmp_path))
    monkeypatch.delenv("RAFTBED_NODES", raising=False)
    monkeypatch.setattr(vagrant, "find_program", lambda name: str(tmp_path / name))

    def write(**answers: str) -> Path:
        cases = "".join(f"{command}) {answer} ;;\n" for command, answer in answers.items())
        program = tmp_path / "vagrant"
        asked = tmp_path / "asked"
        program.write_text(f'#!/bin/sh\necho "$RAFTBED_NODES $*" >>{asked}\ncase $1 in\n{cases}\nesac\n')
        program.chmod(0o755)
        return asked

    return write


def start(directory: Path, *names: str, up: bool = False) -> None:
    asyncio.run(VagrantPool(names, directory, up=up).start())


def test_machines_that_are_down_are_named_unless_they_are_to_be_brought_up(script, tmp_path):
    asked = script(status="printf '1,n1,state,running\\n1,n2,state,shutoff\\n'", up="exit 3", destroy="exit 1")
    with pytest.raises(HostError, match=r"not running: n2 \(shutoff\). Bring them up: vagrant up n2; .* --up"):
        start(tmp_path / "lab", "n1", "n2")
    with pytest.raises(HostError, match="`vagrant up n2` failed"):
        start(tmp_path / "lab", "n1", "n2", up=True)
    assert asked.read_text().splitlines() == [*["2 status --machine-readable"] * 2, "2 up n2"]


def test_too_few_machines_are_an_error_with_the_remedy(script, tmp_path):
    script(status="echo 1,n1,state,running")
    with pytest.raises(HostError, match=r"3 nodes, and the Vagrantfile 1 machines. .* RAFTBED_NODES=3"):
        start(tmp_path / "lab", "n1", "n2", "n3")


def test_what_vagrant_says_of_its_failure_is_shown(script, tmp_path):
    script(status="echo 'The provider is not usable' >&2; exit 1")
    with pytest.raises(HostError, match="`vagrant status --machine-readable` failed: The provider is not usable"):
        start(tmp_path / "lab", "n1")


def test_a_missing_vagrant_is_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(vagrant, "find_program", lambda name: "")
    with pytest.raises(HostError, match=r"vagrant is not installed\. Install it: apt-get install vagrant"):
        start(tmp_path / "lab", "n1")


def test_a_machine_that_is_made_anew_may_show_another_key(tmp_path, monkeypatch):
    monkeypatch.delenv("VAGRANT_DOTFILE_PATH", raising=False)
    identity = tmp_path / ".vagrant/machines/n1/libvirt/id"
    identity.parent.mkdir(parents=True)
    identity.write_text("2f0c-11")
    first = vagrant._known_hosts(tmp_path, "n1")
    assert first == vagrant._known_hosts(tmp_path, "n1")
    identity.write_text("77aa-22")
    assert vagrant._known_hosts(tmp_path, "n1") != first
    assert first.parent.stat().st_mode & 0o777 == 0o700
