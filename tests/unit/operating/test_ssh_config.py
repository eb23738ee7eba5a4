"""A configuration for OpenSSH says what the inventory says, whatever characters stand in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.operating.ssh_config import known_hosts_lines, ssh_config

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample n1"


def entry(**changes) -> InventoryEntry:
    """A host in a lab, changed as asked."""
    made = {
        "name": "n1",
        "address": "10.0.0.1",
        "key": Path("/k/key"),
        "host_key": KEY,
        "open_socket": lambda info: None,
    }
    return InventoryEntry(**{**made, **changes})


def text(file: str = "/k/known_hosts", **changes) -> str:
    return ssh_config([entry(**changes)], known_hosts=file, proxy=["raftbed", "cluster", "proxy"])


def test_a_host_of_a_lab_is_reached_through_the_proxy_and_its_key_is_checked():
    assert text().splitlines() == [
        "Host n1",
        "    HostName 10.0.0.1",
        "    Port 22",
        "    User root",
        "    IdentityFile /k/key",
        "    IdentitiesOnly yes",
        "    IdentityAgent none",
        "    UserKnownHostsFile /k/known_hosts",
        "    GlobalKnownHostsFile /dev/null",
        "    UpdateHostKeys no",
        "    StrictHostKeyChecking yes",
        "    ProxyCommand raftbed cluster proxy n1",
    ]


def test_other_hosts_are_reached_as_their_inventory_says():
    theirs = {"open_socket": None, "host_key": "", "key": None, "known_hosts": ("/home/me/.ssh/known_hosts",)}
    jumping = text(**theirs, jump="me@gate:2222")
    assert "    ProxyJump me@gate:2222\n" in jumping
    assert "    UserKnownHostsFile /home/me/.ssh/known_hosts\n" in jumping
    assert "IdentityFile" not in jumping
    assert "    StrictHostKeyChecking accept-new\n" in text(**theirs, accept_new_keys=True)
    assert "    ProxyCommand nc 10.0.0.1 22\n" in text(**theirs, proxy_command=("nc", "{address}", "{port}"))


def test_a_host_key_stands_under_address_and_name_and_under_the_port_where_it_is_another():
    assert known_hosts_lines([entry()]) == "10.0.0.1,n1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample\n"
    assert known_hosts_lines([entry(port=2222)]).startswith("[10.0.0.1]:2222,[n1]:2222 ssh-ed25519 ")
    assert known_hosts_lines([entry(host_key="")]) == ""


@pytest.mark.parametrize("folder", ["plain", "two words", "100%", 'a "quoted" one', "back\\slash", "semi;colon $(id)"])
def test_openssh_reads_paths_as_they_are(folder, tmp_path):
    if shutil.which("ssh") is None:
        pytest.skip("needs ssh (apt-get install openssh-client)")
    place = tmp_path / folder
    config = tmp_path / "config"
    config.write_text(text(f"{place}/known hosts", key=place / "key"))
    done = subprocess.run(["ssh", "-G", "-F", config, "n1"], capture_output=True, text=True, check=True)
    read = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert read["identityfile"] == f"{place}/key".replace("%", "%%")  # it shows what it will replace when it connects
    assert read["userknownhostsfile"] == f"{place}/known hosts"
    assert read["hostname"] == "10.0.0.1"


def test_what_the_shell_would_understand_stays_text():
    said = ssh_config([entry()], known_hosts="/k", proxy=["/opt/my tools/100%/raftbed", "$(id)"])
    assert "    ProxyCommand '/opt/my tools/100%%/raftbed' '$(id)' n1\n" in said


@pytest.mark.parametrize("changes", [{"key": Path("/${HOME}/key")}, {"user": "a\nProxyCommand id"}])
def test_what_openssh_would_misread_is_refused(changes):
    with pytest.raises(HostError, match=r"n1: .* cannot stand in an SSH configuration"):
        text(**changes)
