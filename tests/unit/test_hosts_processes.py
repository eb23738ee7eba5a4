# ruff: noqa: ASYNC220, ASYNC222, ASYNC230  # a test may wait for the local disk and for processes
"""Processes are found by pid and start time, and a signal's effect is seen before it is believed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from tests_machine import ThisMachine

from raftbed.errors import CommandError
from raftbed.hosts.labs import start_time
from raftbed.hosts.processes import ProcessEvidence, end_processes, process_alive, signal_process, start_detached


@pytest.fixture
def host(tmp_path):
    return ThisMachine(tmp_path)


@pytest.fixture
def sleeper():
    """A process that leads a group of its own, as detached nodes do."""
    process = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def pid_file(tmp_path, pid: int, start: int):
    path = tmp_path / "node.pid"
    path.write_text(f"{pid} {start}\n")
    return str(path)


async def test_a_running_process_is_alive(host, sleeper, tmp_path):
    path = pid_file(tmp_path, sleeper.pid, start_time(sleeper.pid))
    assert await process_alive(host, path) == ProcessEvidence("running", sleeper.pid, start_time(sleeper.pid))


async def test_a_stranger_with_the_same_pid_is_not_touched(host, sleeper, tmp_path):
    path = pid_file(tmp_path, sleeper.pid, start_time(sleeper.pid) - 1)
    evidence = await signal_process(host, path, "KILL")
    assert (evidence.state, evidence.reason) == ("gone", "its pid belongs to another process now")
    assert sleeper.poll() is None


@pytest.mark.parametrize("content", ["", "abc\n", "12\n", "-1 5\n", "0 5\n", "12 x\n", "$(touch /tmp/oops) 1\n"])
async def test_a_malformed_pid_file_names_nobody(host, tmp_path, content):
    path = tmp_path / "node.pid"
    path.write_text(content)
    assert (await signal_process(host, str(path), "KILL")).state == "gone"


async def test_no_pid_file_means_gone(host, tmp_path):
    assert await process_alive(host, str(tmp_path / "none")) == ProcessEvidence("gone", 0, 0, "no pid file")


async def test_a_zombie_is_gone(host, tmp_path):
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    stat = open(f"/proc/{process.pid}/stat").read()  # noqa: SIM115  a line of /proc
    path = pid_file(tmp_path, process.pid, int(stat.rpartition(")")[2].split()[19]))
    assert (await process_alive(host, path)).state == "gone"
    process.wait()


async def test_stop_and_continue_show(host, sleeper, tmp_path):
    path = pid_file(tmp_path, sleeper.pid, start_time(sleeper.pid))
    assert (await signal_process(host, path, "STOP")).state == "stopped"
    assert (await signal_process(host, path, "CONT")).state == "running"


@pytest.mark.parametrize("name", ["KILL", "TERM"])
async def test_a_stopped_process_can_be_ended(host, sleeper, tmp_path, name):
    path = pid_file(tmp_path, sleeper.pid, start_time(sleeper.pid))
    await signal_process(host, path, "STOP")
    assert (await signal_process(host, path, name)).state == "gone"
    assert sleeper.wait(10) == -getattr(signal, f"SIG{name}")


async def test_the_whole_group_dies(host, tmp_path):
    script = "import subprocess,sys; print(subprocess.Popen(['sleep','1000']).pid, flush=True); sys.stdin.read()"
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    child = int(parent.stdout.readline())
    await signal_process(host, pid_file(tmp_path, parent.pid, start_time(parent.pid)), "KILL")
    parent.kill()
    parent.wait(10)
    assert start_time(child) == 0


async def test_a_process_that_ignores_the_signal_is_an_error(host, tmp_path):
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('set', flush=True); signal.pause()"
    stubborn = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    stubborn.stdout.readline()
    path = pid_file(tmp_path, stubborn.pid, start_time(stubborn.pid))
    with pytest.raises(CommandError, match="no effect"):
        await signal_process(host, path, "TERM", timeout=1)
    assert (await signal_process(host, path, "KILL")).state == "gone"
    stubborn.communicate()


async def test_a_clean_exit_that_removes_its_pid_file_is_seen(host, tmp_path):
    script = (
        "import os, signal, sys\n"
        "def leave(*_): os.unlink(sys.argv[1]); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\nprint('set', flush=True)\nsignal.pause()"
    )
    path = tmp_path / "node.pid"
    node = subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, start_new_session=True)
    node.stdout.readline()
    pid_file(tmp_path, node.pid, start_time(node.pid))
    evidence = await signal_process(host, str(path), "TERM")
    assert (evidence.state, evidence.pid) == ("gone", node.pid)
    node.communicate()
    assert node.returncode == 0


async def test_a_detached_process_has_a_clean_environment_and_leads_its_group(host, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_CONTROLLER", "x")
    show = "import os; print(sorted(os.environ), os.getpid() == os.getpgid(0) == os.getsid(0), os.getcwd())"
    log = tmp_path / "deep/log"
    started = await start_detached(
        host, [sys.executable, "-c", show], environment={"ADDED": "1"}, directory=str(tmp_path / "deep"), log=str(log)
    )
    assert started.pid > 0
    while not log.exists() or not log.read_text().endswith("\n"):
        pass
    said = log.read_text()
    assert "SECRET" not in said
    assert "'ADDED'" in said
    assert f"True {tmp_path / 'deep'}" in said
    assert log.stat().st_mode & 0o777 == 0o600


async def test_a_process_is_found_by_its_pid_file_before_it_has_written_one_itself(host, tmp_path):
    path = str(tmp_path / "node.pid")
    started = await start_detached(
        host, ["sleep", "1000"], environment={}, directory=str(tmp_path), log=str(tmp_path / "log"), pid_file=path
    )
    assert await process_alive(host, path) == ProcessEvidence("running", started.pid, started.start)
    assert (await signal_process(host, path, "KILL")).state == "gone"


def in_directory(directory, *words, before=()):
    """A process in a directory, with words in its command line; it has begun when this returns."""
    directory.mkdir(exist_ok=True)
    command = [*before, sys.executable, "-c", "print('here', flush=True); import signal; signal.pause()", *words]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    return process


@pytest.fixture
def processes():
    """Processes to be ended with the test."""
    found = []
    yield found
    for process in found:
        process.kill()
        process.communicate()


async def test_a_node_that_no_pid_file_names_is_found_in_its_directory(host, tmp_path, processes):
    run = tmp_path / "run"
    node = in_directory(run, "--config", f"{run}/node.json")
    strangers = [
        in_directory(run, f"{run}/node.json.bak"),  # somebody who looks at it
        in_directory(tmp_path / "other", "--config", f"{run}/node.json"),
    ]
    processes += [node, *strangers]
    assert (await end_processes(host, f"{run}/node.pid")).reason == "no pid file"
    assert node.wait(10) == -signal.SIGKILL
    assert [process.poll() for process in strangers] == [None, None]


async def test_a_node_under_which_its_directory_was_made_anew_is_found(host, tmp_path, processes):
    run = tmp_path / "run"
    node = in_directory(run, "--config", f"{run}/node.json")
    processes.append(node)
    run.rmdir()
    run.mkdir()
    await end_processes(host, f"{run}/node.pid")
    assert node.wait(10) == -signal.SIGKILL


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")
async def test_a_node_of_a_container_that_sees_another_directory_by_that_name_is_left_alone(host, tmp_path, processes):
    run = tmp_path / "run"
    node = in_directory(run, "--config", f"{run}/node.json", before=["unshare", "--mount"])
    processes.append(node)
    await end_processes(host, f"{run}/node.pid")
    assert node.poll() is None
