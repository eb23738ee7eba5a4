"""Output that cannot be written changes no verdict and cuts no run off; what is written does nothing to a terminal."""

import contextlib
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tests_support import HistoryBuilder, write_lines

from raftbed import cli, listing
from raftbed.console import OUTPUT_SCHEMA, Console, show_results
from raftbed.errors import CommandError, HostsError, UsageError
from raftbed.model import Verdict
from raftbed.operating import following
from raftbed.operating.logs import LogLine
from raftbed.output import OutputStream
from raftbed.store import Results

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


def test_a_directory_that_is_gone_is_no_internal_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in ("doctor", "clean"):
        with pytest.raises(SystemExit) as exit_:
            cli.main([command])
        assert exit_.value.code == 255
        said = "raftbed: the directory that this was called in does not exist any more.\n  Change to another one: cd\n"
        assert capsys.readouterr().err.endswith(said)


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


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31mALL GOOD\x7f\r\u202e\u2066\u061c"
HARMLESS = r"\x1b]0;owned\x07\x1b[2J\x9b31mALL GOOD\x7f\r\u202e\u2066\u061c"


@pytest.fixture
def console(monkeypatch):
    """Make a console on streams in memory that pass for terminals, or do not."""

    class Memory(io.StringIO):
        encoding = "utf-8"

        def isatty(self):
            return self.terminal

    def make(*, terminal=True, **options):
        streams = Memory(), Memory()
        for stream in streams:
            stream.terminal = terminal
        monkeypatch.setattr(sys, "stderr", streams[1])
        return Console(out=streams[0], **options), *streams

    return make


class TestWhatATerminalWouldObey:
    def test_is_shown_in_every_kind_of_message(self, console):
        shown, out, err = console()
        shown.say(HOSTILE)
        shown.warn(HOSTILE)
        shown.error(HostsError([CommandError(host="n1", command="x", status=1, stderr=HOSTILE)], of=3))
        shown.error(UsageError("no.", remedy=HOSTILE))
        shown.result(HOSTILE)
        assert err.getvalue().count(HARMLESS) == 4
        assert out.getvalue() == HARMLESS + "\n"
        assert all(character.isprintable() or character == "\n" for character in err.getvalue())

    def test_is_shown_in_the_progress_line_which_stays_one_line(self, console):
        shown, _, err = console()
        shown.progress("leader n1\x1b[2J\nVALID")
        assert err.getvalue() == "\r\x1b[2Kleader n1\\x1b[2J VALID"

    def test_leaves_lines_columns_and_letters_as_they_are(self, console):
        shown, out, _ = console()
        shown.result("a\tb\nc ✓ ü 漢 العربية 🙂")
        assert out.getvalue() == "a\tb\nc ✓ ü 漢 العربية 🙂\n"

    def test_is_obeyed_where_it_is_ours(self, console):
        shown, out, _ = console()
        verdict = Verdict(checker="node-health", validity="invalid", summary=HOSTILE)
        show_results(shown, Results(run="r1", validity="invalid", verdicts=[verdict]))
        first, second = out.getvalue().splitlines()
        assert first == "\x1b[1;31mINVALID\x1b[0m  r1"
        assert second == f"  \x1b[31m✗\x1b[0m node-health: {HARMLESS}"

    def test_is_shown_in_tracebacks_and_internal_errors(self, monkeypatch, capsys):
        def broken(*_arguments):
            raise RuntimeError(HOSTILE)

        monkeypatch.setattr(listing, "rows", broken)
        for arguments in (["list", "tests"], ["list", "tests", "--debug"]):
            with pytest.raises(SystemExit):
                cli.main(arguments)
            assert HARMLESS in capsys.readouterr().err

    def test_is_escaped_in_json_without_changing_what_it_says(self, console):
        shown, out, _ = console(json=True)
        shown.emit({"said": HOSTILE, "letters": "ü✓🙂"})
        assert json.loads(out.getvalue()) == {"schema": OUTPUT_SCHEMA, "said": HOSTILE, "letters": "ü✓🙂"}
        assert not set(HOSTILE) & {character for character in out.getvalue() if not character.isprintable()}
        assert "ü✓🙂" in out.getvalue()


class TestCharacterSets:
    """Not UTF-8, as in the locale POSIX, or where PYTHONIOENCODING says so."""

    @pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
    def test_that_lack_our_signs_have_others_that_say_the_same(self, histories, encoding):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = ended("check", histories["good"], histories["bad"], env=environment)
        assert (done.returncode, done.stderr) == (1, "")
        assert "  + linearizable: " in done.stdout
        assert "  x linearizable: " in done.stdout, "not a question mark, which would say that it is unknown"
        assert "read -> 2" in done.stdout

    def test_that_lack_a_letter_show_its_number(self, tmp_path):
        descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
        print("ü✓漢\udcff", file=OutputStream(descriptor, "ascii"))
        os.close(descriptor)
        assert (tmp_path / "out").read_text() == r"\xfc+\u6f22\udcff" + "\n"

    def test_are_all_the_same_to_json(self, tmp_path):
        descriptor = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
        Console(json=True, out=OutputStream(descriptor, "latin-1")).emit({"letters": "ü✓🙂"})
        os.close(descriptor)
        assert json.loads((tmp_path / "out").read_bytes())["letters"] == "ü✓🙂"

    @pytest.mark.parametrize("arguments", [("check",), ("check", "--json")])
    def test_that_the_name_of_a_file_is_not_in_are_no_internal_error(self, tmp_path, arguments):
        name = os.fsdecode(b"caf\xe9.jsonl")
        done = ended(*arguments, name, cwd=tmp_path)
        assert done.returncode == 254
        assert done.stderr.startswith(r"raftbed: caf\udce9.jsonl: there is no such file.")
        if "--json" in arguments:
            assert json.loads(done.stdout)["errors"][0]["path"] == name
