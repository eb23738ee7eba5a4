"""The Vagrantfile: Vagrant itself finds nothing wrong with it, for any number of machines and for both providers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from raftbed.hosts.prerequisites import find_program
from raftbed.hosts.vagrant import read_states

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.skipif(not find_program("vagrant"), reason="needs vagrant (apt-get install vagrant)")


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


@pytest.mark.parametrize("nodes", ["1", "9"])
def test_it_has_as_many_machines_as_one_asks_for(tmp_path, nodes):
    if "libvirt" not in call(tmp_path, "plugin", "list").stdout:
        pytest.skip("needs a provider (apt-get install vagrant-libvirt)")
    status = call(tmp_path, "status", "--machine-readable", RAFTBED_NODES=nodes, VAGRANT_DEFAULT_PROVIDER="libvirt")
    assert list(read_states(status.stdout)) == [f"n{number}" for number in range(1, int(nodes) + 1)]


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
