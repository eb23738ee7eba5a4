"""The whole road on real hosts: plan, deploy, run, record, check, report, and what is left when it is cut off."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests_machine import why_no_local_hosts

from raftbed.store import RunDirectory

RAFTBED = str(Path(sys.executable).with_name("raftbed"))
PATIENCE = 90  # seconds for anything here; everything ends long before


OBSTACLE = why_no_local_hosts()
pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "it can")]


def raftbed(cwd: Path, *arguments: str, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, in an empty directory."""
    ended = subprocess.run(
        [RAFTBED, *arguments], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if expect is not None:
        assert ended.returncode == expect, f"exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended


def started(cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a run and wait until its clients have done something."""
    process = subprocess.Popen(
        [RAFTBED, "run", *arguments], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: latest(cwd) is not None and acknowledged(latest(cwd)) > 50, process)
    return process


def latest(cwd: Path) -> RunDirectory | None:
    link = cwd / "store" / "latest"
    return RunDirectory(link.resolve()) if link.exists() else None


def acknowledged(run: RunDirectory | None) -> int:
    assert run is not None
    return sum(op.type == "ok" for op in run.history())


def wait_for(condition, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until something holds; fail when the process that should bring it about has ended."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        if process is not None and process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"exit {process.returncode}\n{out}\n{err}")
        time.sleep(0.1)


def nothing_is_left(cwd: Path) -> bool:
    """No process of a lab, and no lab directory, remains of the runs in `cwd`."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if str(cwd).encode() in (entry / "cmdline").read_bytes():
                    return False
    return not list(cwd.glob("store/*/*/lab"))


def test_a_run_ends_with_verdict_record_and_report(tmp_path):
    document = json.loads(raftbed(tmp_path, "run", "smoke-test", "--time-limit", "3", "--json").stdout)
    assert document["schema"] == "raftbed.output/1"
    assert document["validity"] == "valid"
    run = latest(tmp_path)
    assert run is not None
    assert acknowledged(run) > 100
    assert run.manifest().state == "ended"
    assert set(run.manifest().node_addresses) == {"n1", "n2", "n3", "n4", "n5"}
    for node in run.plan().nodes:
        assert run.node_file(node, "node.log") and run.node_file(node, "trace.jsonl")
    assert any(sample.role == "leader" for sample in run.status())
    assert stat.S_IMODE(run.report_path.stat().st_mode) == 0o600
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize(("test", "faults"), [("partition-test", 2), ("crash-test", 3)])
def test_every_fault_is_proved_and_healed_and_the_cluster_serves_again(tmp_path, test, faults):
    raftbed(tmp_path, "run", test, "--time-limit", "7", "--seed", "1", "--quiet")
    run = latest(tmp_path)
    assert run is not None
    states = {}
    for event in run.faults():
        states.setdefault(event.fault, []).append(event.state)
    assert len(states) == faults
    assert all(ledger == ["injected", "proved", "healed"] for ledger in states.values())
    results = run.results()
    assert results is not None
    availability = next(verdict for verdict in results.verdicts if verdict.checker == "availability")
    assert all(recovery["seconds"] is not None for recovery in availability.details["recoveries"])


def test_a_planted_bug_is_found_with_its_witness(tmp_path):
    plan = tmp_path / "plan.toml"
    plan.write_text(
        """
        test = "partition-test"
        bug = "stale-leader-read"
        time_limit = 10.0
        seed = 1
        concurrency = 30
        rate = 600
        keys = 4
        [[schedule]]
        id = "f01"
        kind = "partition"
        shape = "leader-alone"
        at = 1.0
        until = 5.0
        order = ["n1", "n2", "n3", "n4", "n5"]
        [[schedule]]
        id = "f02"
        kind = "partition"
        shape = "leader-alone"
        at = 6.0
        until = 9.5
        order = ["n1", "n2", "n3", "n4", "n5"]
        """
    )
    ended = raftbed(tmp_path, "run", "plan.toml", "--quiet", expect=1)
    assert "INVALID" in ended.stdout
    run = latest(tmp_path)
    assert run is not None
    results = run.results()
    assert results is not None
    verdict = next(verdict for verdict in results.verdicts if verdict.checker == "linearizable")
    assert verdict.validity == "invalid"
    assert verdict.details["witness"]["operations"]
    assert "planted bug" in run.report_path.read_text(encoding="utf-8")


def test_ctrl_c_saves_heals_checks_and_reports(tmp_path):
    process = started(tmp_path, "partition-test", "--time-limit", "60", "--seed", "2")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (0, 2), out + err
    run = latest(tmp_path)
    assert run is not None
    assert run.manifest().state == "interrupted"
    assert run.results() is not None
    assert run.report_path.exists()
    healed = {event.fault for event in run.faults() if event.state == "healed"}
    assert {event.fault for event in run.faults()} == healed
    assert nothing_is_left(tmp_path)


def test_ctrl_c_twice_saves_and_leaves_nothing(tmp_path):
    process = started(tmp_path, "smoke-test", "--time-limit", "60")
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert acknowledged(latest(tmp_path)) > 50
    assert nothing_is_left(tmp_path)


def test_a_killed_controller_takes_its_hosts_along_and_its_record_can_be_checked(tmp_path):
    process = started(tmp_path, "partition-test", "--time-limit", "60", "--seed", "3")
    process.kill()
    process.communicate(timeout=PATIENCE)
    run = latest(tmp_path)
    assert run is not None
    assert run.manifest().state == "running"
    ended = raftbed(tmp_path, "check", str(run.path), expect=None)
    assert ended.returncode in (0, 2), ended.stdout + ended.stderr
    assert "✓ linearizable" in ended.stdout
    wait_for(lambda: nothing_is_left(tmp_path))
    assert "The controller was cut off" in Path(raftbed(tmp_path, "report", str(run.path)).stdout.strip()).read_text(
        encoding="utf-8"
    )
    findings = json.loads(raftbed(tmp_path, "doctor", "--json").stdout)["findings"]
    assert not [
        finding for finding in findings if finding["kind"] == "leftovers" and str(tmp_path) in finding["detail"]
    ]


def test_kept_hosts_are_found_and_removed_later(tmp_path):
    raftbed(tmp_path, "run", "smoke-test", "--time-limit", "2", "--nodes", "3", "--keep", "--quiet")
    assert not nothing_is_left(tmp_path)
    somewhere = tmp_path / "somewhere"
    somewhere.mkdir()
    assert f"left alone: kept hosts n1, n2, n3 in {tmp_path}" in raftbed(somewhere, "clean").stderr
    assert not nothing_is_left(tmp_path)
    ended = raftbed(tmp_path, "clean")
    assert str(tmp_path) in ended.stderr
    assert "removed." in ended.stdout
    assert nothing_is_left(tmp_path)
    assert str(tmp_path) not in raftbed(tmp_path, "clean").stderr


def test_two_runs_at_once_do_not_touch_each_other(tmp_path):
    places = [tmp_path / "a", tmp_path / "b"]
    processes = []
    for place in places:
        place.mkdir()
        command = [RAFTBED, "run", "smoke-test", "--time-limit", "3", "--nodes", "3", "--quiet"]
        processes.append(subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, text=True))
    for process in processes:
        out, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, out
    assert all(nothing_is_left(place) for place in places)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
def test_a_full_disk_ends_the_run_with_a_sentence_and_keeps_the_record(tmp_path):
    # A file system of its own, in a mount namespace of its own, filled up while clients are at work.
    script = """
    mount -t tmpfs -o size=24m tmpfs "$1" && cd "$1" || exit 99
    "$2" run smoke-test --time-limit 60 --nodes 3 --quiet &
    run=$!
    while [ "$(grep -c '"type":"ok"' store/latest/history.jsonl 2>/dev/null || echo 0)" -lt 50 ]; do
        kill -0 $run || exit 98
        sleep 0.1
    done
    cat /dev/zero > filler 2>/dev/null
    wait $run
    code=$?
    rm filler
    "$2" check "$(readlink -f store/latest)"
    exit $code
    """
    ended = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script, "fill", str(tmp_path), RAFTBED],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 255, ended.stdout + ended.stderr
    assert "No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "linearizable" in ended.stdout
