"""The command line answers in one sentence, with the right exit code, and nothing it cannot do is half done."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import HistoryBuilder, make_run, write_lines

from raftbed.cli import main
from raftbed.errors import StoreError

GOOD = HistoryBuilder().op(0, "write", "x", 1, call=0, end=1).op(0, "read", "x", None, call=2, end=3, result=1)
BAD = HistoryBuilder().op(0, "write", "x", 1, call=0, end=1).op(0, "read", "x", None, call=2, end=3, result=2)


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run a command in an empty directory: its exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


def history(path: Path, builder: HistoryBuilder) -> Path:
    write_lines(path, builder.sorted())
    return path


class TestUsage:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("run",), "Missing argument 'TEST|PLAN.toml'"),
            (("run", "no-such-test"), "There is no test 'no-such-test'."),
            (("run", "smoke-test", "--nodes", "0"), "nodes: 0 is out of bounds"),
            (("run", "smoke-test", "--faults", "fire"), "There is no fault 'fire'."),
            (("run", "plan.toml"), "plan.toml: cannot be read: No such file or directory"),
            (("run", "smoke-test", "--repeat", "0"), "--repeat"),
            (("check",), "Missing argument 'PATH...'"),
            (("check", "gone.jsonl"), "gone.jsonl: there is no such file."),
            (("list", "cheeses"), "'cheeses' is not one of 'tests', 'workloads'"),
            (("list",), "raftbed: Missing argument 'KIND'. Choose from: tests, workloads"),
            (("run", "smoke-test", "--sed", "3"), "No such option '--sed'"),
            (("check", "x", "--check-time-limit", "-1"), "--check-time-limit"),
            (("check", "x", "--check-memory-limit", "0"), "--check-memory-limit"),
            (("fly",), "No such command 'fly'"),
        ],
    )
    def test_what_cannot_be_done_is_said_in_a_sentence(self, cli, arguments, said):
        code, _, err = cli(*arguments)
        assert code == 254
        assert said in err
        assert "Traceback" not in err
        assert len(err.splitlines()) <= 2, "a sentence, and the remedy"

    def test_what_is_wrong_in_a_plan_file_comes_with_its_name(self, cli, tmp_path):
        plan = tmp_path / "plan.toml"
        plan.write_text('test = "smoke-test"\nnodes = 0\n')
        assert f"{plan}: nodes: 0 is out of bounds" in cli("run", plan, "--dry-run")[2]

    def test_nothing_is_made_for_a_command_that_cannot_be_done(self, cli, tmp_path):
        cli("run", "no-such-test")
        assert list(tmp_path.iterdir()) == []

    def test_a_plan_with_its_own_schedule_cannot_be_given_another_seed(self, cli, tmp_path):
        plan = tmp_path / "plan.toml"
        plan.write_text('test = "smoke-test"\nschedule = []\n')
        code, _, err = cli("run", plan, "--seed", "3")
        assert code == 254
        assert "spells its schedule out" in err

    @pytest.mark.parametrize(
        "arguments",
        [("--debug", "run", "no-such-test"), ("check", "gone.jsonl", "--debug"), ("run", "x.toml", "--debug")],
    )
    def test_a_traceback_is_shown_when_asked_for_and_changes_no_exit_code(self, cli, arguments):
        code, _, err = cli(*arguments)
        assert code == 254, "1 would say that a run was invalid"
        assert "Traceback" in err

    def test_version(self, cli):
        assert cli("--version") == (0, "raftbed 0.1.0\n", "")


class TestDryRun:
    def test_it_prints_plan_and_schedule_and_runs_nothing(self, cli, tmp_path):
        code, out, _ = cli("run", "partition-test", "--seed", "7", "--dry-run")
        assert code == 0
        assert "f01" in out
        assert "raftbed run partition-test --seed 7" in out
        assert list(tmp_path.iterdir()) == []

    def test_for_machines(self, cli):
        _, out, _ = cli("run", "crash-test", "--seed", "7", "--dry-run", "--json")
        document = json.loads(out)
        assert document["schema"] == "raftbed.output/1"
        assert document["plan"]["seed"] == 7


class TestCheck:
    def test_a_good_history_is_valid(self, cli, tmp_path):
        code, out, _ = cli("check", history(tmp_path / "good.jsonl", GOOD))
        assert code == 0
        assert out.startswith("VALID")

    def test_the_worst_verdict_sets_the_exit_code(self, cli, tmp_path):
        good, bad = history(tmp_path / "good.jsonl", GOOD), history(tmp_path / "bad.jsonl", BAD)
        code, out, _ = cli("check", bad, good)
        assert code == 1
        assert "read returned 2" in out

    def test_for_machines(self, cli, tmp_path):
        code, out, _ = cli("check", history(tmp_path / "bad.jsonl", BAD), "--json")
        document = json.loads(out)
        assert (code, document["validity"]) == (1, "invalid")
        assert document["results"][0]["verdicts"][0]["details"]["witness"]["operations"]

    def test_a_verdict_that_cannot_be_kept_is_told_all_the_same(self, cli, tmp_path, monkeypatch):
        def no_room(path: Path, content: bytes) -> None:
            raise StoreError(f"{path}: cannot be written: Read-only file system.")

        run = make_run(tmp_path)
        history(run.history_path, BAD)
        monkeypatch.setattr("raftbed.store.write_private", no_room)
        code, out, err = cli("check", run.path)
        assert (code, out.startswith("INVALID")) == (1, True)
        assert "results.json: cannot be written: Read-only file system." in err
        assert "The verdict is not kept" in err

    def test_nothing_to_check_is_unknown(self, cli, tmp_path):
        (tmp_path / "empty.jsonl").write_text('{"schema": "raftbed.history/1"}\n')
        assert cli("check", "empty.jsonl")[0] == 2

    def test_a_malformed_history_is_named_with_its_line(self, cli, tmp_path):
        (tmp_path / "odd.jsonl").write_text('{"index": 0}\n{}\n')
        code, _, err = cli("check", "odd.jsonl")
        assert code == 254
        assert "odd.jsonl: line 1" in err

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("deep.jsonl", b"[" * 100_000 + b"]" * 100_000 + b"\n", "line 1 is not an event of a history"),
            ("plain.jsonl.gz", b"hello\n", "is not compressed by gzip"),
            ("cut.jsonl.gz", gzip.compress(b"{}\n", mtime=0)[:12], "UNKNOWN"),
            ("broken.jsonl.gz", gzip.compress(b"{}", mtime=0)[:10] + b"\xff" * 80, "data are broken"),
            ("bytes.jsonl", bytes(range(256)), "line 1 is not an event"),
        ],
    )
    def test_no_file_is_odd_enough_for_an_internal_error(self, cli, tmp_path, name, content, said):
        (tmp_path / name).write_bytes(content)
        code, out, err = cli("check", name)
        assert code in (2, 254)
        assert said in out + err
        assert "internal error" not in err

    def test_a_path_that_cannot_be_checked_stops_no_other(self, cli, tmp_path):
        bad = history(tmp_path / "bad.jsonl", BAD)
        code, out, err = cli("check", "gone.jsonl", bad)
        assert code == 254
        assert "gone.jsonl: there is no such file" in err
        assert out.startswith("INVALID")
        document = json.loads(cli("check", "gone.jsonl", history(tmp_path / "good.jsonl", GOOD), "--json")[1])
        assert document["validity"] == "unknown"
        assert [error["path"] for error in document["errors"]] == ["gone.jsonl"]

    def test_times_of_a_witness_read_as_such(self, cli, tmp_path):
        open_ended = HistoryBuilder().op(1, "write", "x", 2, call=0, end=None)
        open_ended.op(0, "read", "x", None, call=1, end=2, result=2).op(0, "read", "x", None, call=3, end=4)
        _, out, _ = cli("check", history(tmp_path / "bad.jsonl", open_ended))
        assert "0.000000 s, no answer: client 1 write 2 at n1  [unknown]" in out
        assert "3.000000 s to 4.000000 s: client 0 read → null at n1  [ok]" in out

    def test_a_directory_that_is_no_run_is_named(self, cli, tmp_path):
        code, _, err = cli("check", tmp_path)
        assert code == 255
        assert "is not a run directory" in err
        assert "raftbed list runs" in err


class TestReport:
    def test_the_latest_run_is_reported_and_checked_first_when_it_was_not(self, cli, tmp_path):
        run = make_run(tmp_path, state="running")
        write_lines(run.history_path, GOOD.sorted())
        code, out, _ = cli("report")
        assert (code, Path(out.strip())) == (0, run.report_path)
        assert run.results() is not None

    def test_an_empty_store_says_what_to_do(self, cli):
        code, _, err = cli("report")
        assert code == 255
        assert "raftbed run partition-test" in err


class TestList:
    @pytest.mark.parametrize("kind", ["tests", "workloads", "faults", "bugs", "hosts", "systems"])
    def test_there_is_something_of_every_kind(self, cli, kind):
        code, out, _ = cli("list", kind)
        assert code == 0
        assert out.strip()

    def test_the_bugs_that_the_readme_names_are_there(self, cli):
        names = {bug["name"] for bug in json.loads(cli("list", "bugs", "--json")[1])["bugs"]}
        assert {"stale-leader-read", "no-retry-dedup", "restart-applies-wrong"} <= names

    def test_runs_show_verdict_state_and_command(self, cli, tmp_path):
        run = make_run(tmp_path, state="running")
        assert "not checked" in cli("list", "runs")[1]
        (shown,) = json.loads(cli("list", "runs", "--json")[1])["runs"]
        assert (shown["validity"], shown["state"], shown["path"]) == (
            None,
            "running",
            str(run.path.relative_to(tmp_path)),
        )
        assert shown["command"] == "raftbed run smoke-test --seed 1"

    @pytest.mark.parametrize("command", [("check", "closed/x"), ("report", "closed/x"), ("list", "runs"), ("report",)])
    def test_what_is_closed_to_this_user_is_named(self, tmp_path, command):
        (tmp_path / "closed").mkdir(mode=0)
        store = () if command[0] == "check" else ("--store", "closed")
        # Nothing is closed to root; in a user namespace where he is somebody else, he is an ordinary user.
        ordinary = ("unshare", "--user", "--map-user=1000") if os.geteuid() == 0 else ()
        ended = subprocess.run(
            [*ordinary, sys.executable, "-m", "raftbed.cli", *command, *store],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        (tmp_path / "closed").chmod(0o700)
        assert ended.returncode in (254, 255)
        assert "closed" in ended.stderr and "Permission denied" in ended.stderr


@pytest.mark.parametrize(("state", "expected"), [("ok", 0), ("missing", 255)])
def test_the_doctor_tells_by_its_exit_code_whether_runs_can_be_run(cli, tmp_path, monkeypatch, state, expected):
    from raftbed import doctor

    kind = doctor.ROOT_HOSTS if os.geteuid() == 0 else doctor.USER_HOSTS
    asked = []

    def diagnose(store):
        asked.append(store)
        return [doctor.Finding(kind, "namespaces", state, "as it is")]

    monkeypatch.setattr(doctor, "diagnose", diagnose)
    code, out, _ = cli("doctor", "--store", tmp_path / "elsewhere")
    assert code == expected
    assert "as it is" in out
    assert asked == [tmp_path / "elsewhere"], "leftovers are looked for in the store that was named"


def test_help_is_quick_to_write_and_names_the_first_step():
    ended = subprocess.run([sys.executable, "-m", "raftbed.cli", "--help"], capture_output=True, text=True, check=False)
    assert "raftbed run partition-test" in ended.stdout
