"""Real virtual machines: a box is made of Debian's packages, three machines are emulated, and a test runs on them.

Opt-in, for it takes minutes, both cores to itself, and Debian's mirror. As root, on Debian 12:

    apt-get install vagrant vagrant-libvirt libvirt-daemon-system qemu-system-x86 qemu-utils dnsmasq-base mmdebstrap
    pytest -m soak -s tests/live/test_vagrant_machines.py

libvirtd runs in namespaces of its own, so that its networks and rules are seen nowhere else. RAFTBED_DRIVER=kvm in the
environment takes the processor instead of emulating one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from raftbed.hosts.prerequisites import find_program
from raftbed.store import RunDirectory

ROOT = Path(__file__).resolve().parent.parent.parent
SUPPORT = ROOT / "tests/support"
NEEDS = {
    "vagrant": "vagrant vagrant-libvirt",
    "libvirtd": "libvirt-daemon-system",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "dnsmasq": "dnsmasq-base",
    "mmdebstrap": "mmdebstrap",
}
MISSING = [package for program, package in NEEDS.items() if not find_program(program)]
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="a libvirtd of its own needs root"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs apt-get install {' '.join(MISSING)}"),
]

PLAN = """# For machines on which a command takes seconds: a light load, patient clients, slow elections.
test = "partition-test"
hosts = "vagrant"
nodes = 3
seed = 1
time_limit = 60
rate = 10
operation_timeout = 10
recovery_timeout = 60

[node_options]
election_timeout_min = 2000
election_timeout_max = 4000
heartbeat_interval = 400
"""
ON_MACHINES = """set -e
vagrant box add --provider libvirt --name raftbed-trial "$1/raftbed.box"
began=$(date +%s)
vagrant up
echo "vagrant up took $(($(date +%s) - began)) s"
began=$(date +%s)
set +e
"$2" -m raftbed.cli run "$1/slow-machines.toml" --store "$1/store"
status=$?
echo "raftbed run took $(($(date +%s) - began)) s"
vagrant destroy --force
exit $status
"""


def test_a_partition_test_on_three_emulated_machines_is_valid(tmp_path):
    began = time.monotonic()
    subprocess.run(["sh", SUPPORT / "make_box.sh", tmp_path], check=True)
    print(f"\nthe box took {time.monotonic() - began:.0f} s")
    (tmp_path / "slow-machines.toml").write_text(PLAN)
    environment = {
        **os.environ,
        "VAGRANT_CWD": str(ROOT),
        "VAGRANT_HOME": str(tmp_path / "home"),
        "VAGRANT_DOTFILE_PATH": str(tmp_path / "state"),
        "VAGRANT_DEFAULT_PROVIDER": "libvirt",
        "RAFTBED_BOX": "raftbed-trial",
        "RAFTBED_NODES": "3",
        "RAFTBED_DRIVER": os.environ.get("RAFTBED_DRIVER", "qemu"),
    }
    command = ["sh", SUPPORT / "private_libvirt.sh", tmp_path / "libvirt", "sh", "-c", ON_MACHINES, "run", tmp_path]
    ended = subprocess.run([*command, sys.executable], env=environment, check=False)
    assert ended.returncode == 0
    run = RunDirectory((tmp_path / "store/latest").resolve())
    results = run.results()
    assert results is not None
    assert results.validity == "valid"
    proved = [event for event in run.faults() if event.kind == "partition" and event.state == "proved"]
    assert proved
    # Peers met on the private network, not at the way in.
    assert list(run.manifest().node_addresses.values()) == ["192.168.56.11", "192.168.56.12", "192.168.56.13"]
