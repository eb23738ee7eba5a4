"""The doctor names what is missing together with the command that gets it, and leaves nothing behind."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path

import pytest

from raftbed import doctor
from raftbed.doctor import Finding
from raftbed.faults.toolbox import MECHANISMS
from raftbed.hosts import prerequisites

FAULT_KINDS = ("faults", doctor.LATER_FAULTS)


def test_findings_are_grouped_and_remedies_stand_below_what_they_cure():
    text = doctor.render(
        [
            Finding("local hosts", "programs", "ok", "there"),
            Finding("faults", "nft", "warning", "not installed", "apt-get install nftables"),
            Finding("faults", "route", "missing", "refused", "become root"),
        ]
    )
    assert text == (
        "local hosts\n"
        "  ok       programs: there\n"
        "\n"
        "faults\n"
        "  warning  nft: not installed\n"
        "           -> apt-get install nftables\n"
        "  MISSING  route: refused\n"
        "           -> become root\n"
    )


def test_missing_programs_come_with_the_package_to_install(monkeypatch):
    monkeypatch.setattr(prerequisites, "find_program", lambda name: "" if name == "ip" else f"/bin/{name}")
    findings = list(doctor._local_hosts())
    assert [finding.state for finding in findings] == ["missing"]
    assert "apt-get install iproute2" in findings[0].remedy
    assert not doctor.is_usable(findings)


def test_each_fault_is_judged_by_its_own_trial(monkeypatch):
    said = "nft ok\nnft-loss failed Error: No such file\niptables ok\nroute failed RTNETLINK answers: no\n"
    monkeypatch.setattr(doctor, "_run", lambda command, stdin="": (0, said))
    monkeypatch.setattr(doctor, "find_program", lambda name: f"/sbin/{name}")
    findings = list(doctor._network_faults())
    assert [kind for kind, _ in groupby(finding.kind for finding in findings)] == list(FAULT_KINDS)
    states = {finding.name: finding for finding in findings}
    assert states["nft"].state == "ok"
    assert (states["nft-loss"].state, states["nft-loss"].detail) == ("warning", "packet loss: Error: No such file")
    assert states["route"].state == "missing"
    assert states["netem"].state == "warning"
    assert all(finding.remedy for finding in states.values() if finding.state != "ok")


def test_leftovers_are_found_in_the_store(tmp_path):
    lab = tmp_path / "smoke-test/20260101T000000.000/lab"
    lab.mkdir(parents=True)
    (lab / "lab.json").write_text(
        '{"controller": 1, "controller_start": 1, "boot": "x", "created": 0, "kept": false, "holder": 0,'
        ' "holder_start": 0, "lab": {"hosts": [{"name": "n1"}]}}'
    )
    found = [finding for finding in doctor._leftovers(tmp_path) if str(lab) in finding.detail]
    assert [(finding.name, finding.state, finding.remedy) for finding in found] == [
        ("orphaned", "warning", "raftbed clean")
    ]


@pytest.mark.live
def test_a_real_diagnosis_tries_everything_and_leaves_the_machine_as_it_was(tmp_path):
    before = (Path("/proc/self/mountinfo").read_text(), set(os.listdir("/sys/class/net")))
    findings = doctor.diagnose(tmp_path)
    assert (Path("/proc/self/mountinfo").read_text(), set(os.listdir("/sys/class/net"))) == before
    assert {"faults", "docker", "vagrant", "leftovers"} <= {finding.kind for finding in findings}
    if doctor.is_usable(findings):
        tried = {kind: {finding.name for finding in findings if finding.kind == kind} for kind in FAULT_KINDS}
        assert tried["faults"] == {"kill", *MECHANISMS}, "every way to cut that runs may take is tried"
        assert tried[doctor.LATER_FAULTS] >= {"netem", "/dev/fuse"}
    assert all(finding.detail for finding in findings)
