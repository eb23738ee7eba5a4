"""Output that cannot be written, or not as it is, changes no verdict, cuts no run off, and does nothing to a terminal."""

import contextlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tests_support import HistoryBuilder, write_lines

from raftbed import cli, listing
from raftbed.operating import following
from raftbed.operating.logs import LogLine
from raftbed.output import OutputStream

GOOD = HistoryBuilder().op(0, "write", "x", 1, call=0, end=1).op(0, "read", "x", None, call=2, end=3, result=1)
BAD = HistoryBuilder().op(0, "write", "x", 1, call=0, end=1).op(0, "read", "x", None, call=2, end=3, result=2)
COMMAND = [sys.executable, "-m", "raftbed.cli"]


@pytest.fixture
def unread():
    """The writing end of a pipe whose reader is gone."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.fixture
def full():
    with open("/dev/full", "wb") as device:
        yield device


@pytest.fixture
def gone_terminal():
    """A terminal that has been closed."""
    here, there = os.openpty()
    os.close(here)
    yield there
    os.close(there)


@pytest.fixture
def histories(tmp_path):
    """Paths of a good and a bad history."""
    for name, builder in (("good", GOOD), ("bad", BAD)):
        write_lines(tmp_path / f"{name}.jsonl", builder.sorted())
    return {name: tmp_path / f"{name}.jsonl" for name in ("good", "bad")}


def ended(*arguments: object, **streams: object) -> subprocess.CompletedProcess[str]:
    """A command of its own process; what is not said otherwise is captured."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.run([*COMMAND, *map(str, arguments)], text=True, check=False, **streams)


class TestTheExitCode:
    @pytest.mark.parametrize(("history", "code"), [("good", 0), ("bad", 1)])
    def test_is_the_verdict_when_nobody_reads(self, histories, unread, history, code):
        assert ended("check", histories[history], stdout=unread).returncode == code
        assert ended("check", histories[history], stdout=unread, stderr=unread).returncode == code

    def test_is_the_verdict_when_the_terminal_is_gone(self, tmp_path, gone_terminal):
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), gone_terminal)
        arguments = ("simulate", "smoke-test", "--seed", "1", "--time-limit", "1", "--store", tmp_path)
        assert ended(*arguments, **streams).returncode == 0, "its progress line has nowhere to go, and it went on"
        assert list(tmp_path.glob("*/*/report.html"))

    def test_says_so_when_a_valid_result_could_not_be_written(self, histories, full):
        for arguments in (("check", histories["good"]), ("list", "tests"), ("list", "tests", "--json"), ("--help",)):
            done = ended(*arguments, stdout=full)
            assert done.returncode == 255, "neither valid nor, as 1 would have it, invalid"
            assert done.stderr == "raftbed: standard output cannot be written: No space left on device.\n"

    def test_of_an_invalid_result_is_that_in_any_case(self, histories, full):
        assert ended("check", histories["bad"], stdout=full).returncode == 1

    def test_of_an_error_does_not_depend_on_whether_it_could_be_told(self, full):
        assert ended("check", "gone.jsonl", stderr=full).returncode == 254
        assert ended("check", "gone.jsonl", "--debug", stderr=full).returncode == 254

    def test_is_not_1_when_a_pipe_of_our_own_breaks(self, monkeypatch, capsys):
        def broken(*_arguments):
            raise BrokenPipeError(32, "Broken pipe")

        monkeypatch.setattr(listing, "rows", broken)
        with pytest.raises(SystemExit) as exit_:
            cli.main(["list", "tests"])
        assert exit_.value.code == 255
        assert "internal error: BrokenPipeError: [Errno 32] Broken pipe" in capsys.readouterr().err


class TestStreamsThatAreClosed:
    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_are_no_internal_error(self, closed):
        # A shell, because Python itself cannot start a process without a standard stream.
        line = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "list", "tests"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")

    def test_are_not_taken_by_a_file_that_is_opened_later(self):
        opened = "import raftbed.output as o; o.guard_outputs(); print(open('/dev/null').fileno(), file=o.sys.stderr)"
        line = ["/bin/sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-c", opened]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert int(done.stderr) > 2


def test_following_logs_ends_when_nobody_reads_them_any_more(monkeypatch, unread):
    shown = []

    def endless(_fleet, _lines):
        while len(shown) < 1000:
            shown.append(LogLine(node="n1", time=0.0, text="a line"))
            yield shown[-1]

    monkeypatch.setattr(following, "follow_logs", endless)
    monkeypatch.setattr("raftbed.cli_cluster.target", lambda *_arguments: None)
    fleet = contextlib.nullcontext(SimpleNamespace(remotes={"n1": None}))
    monkeypatch.setattr("raftbed.cli_cluster.fleet_of", lambda *_arguments, **_options: fleet)
    monkeypatch.setattr(sys, "stdout", OutputStream(unread, "utf-8"))
    with pytest.raises(SystemExit) as exit_:
        cli.main(["cluster", "logs", "--follow", "--hosts", "n1"])
    assert (exit_.value.code, len(shown)) == (0, 1)


def test_a_terminal_that_somebody_made_non_blocking_gets_every_line():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(["wc", "-c"], stdin=reading, stdout=subprocess.PIPE) as counter:
        os.close(reading)
        stream = OutputStream(writing, "utf-8")
        print("x" * 300_000, file=stream, flush=True)  # more than a pipe holds
        os.close(writing)
        assert counter.communicate()[0] == b"300001\n"
    assert stream.failure is None
