"""The command line answers in one sentence, with the right exit code, and nothing it cannot do is half done."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import HistoryBuilder, make_run, write_lines

from raftbed.cli import main

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
            (("list", "cheeses"), "cheeses"),
            (("fly",), "No such command 'fly'"),
        ],
    )
    def test_what_cannot_be_done_is_said_in_a_sentence(self, cli, arguments, said):
        code, _, err = cli(*arguments)
        assert code == 254
        assert said in err
        assert "Traceback" not in err

    def test_nothing_is_made_for_a_command_that_cannot_be_done(self, cli, tmp_path):
        cli("run", "no-such-test")
        assert list(tmp_path.iterdir()) == []

    def test_a_plan_with_its_own_schedule_cannot_be_given_another_seed(self, cli, tmp_path):
        plan = tmp_path / "plan.toml"
        plan.write_text('test = "smoke-test"\nschedule = []\n')
        code, _, err = cli("run", plan, "--seed", "3")
        assert code == 254
        assert "spells its schedule out" in err

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

    def test_nothing_to_check_is_unknown(self, cli, tmp_path):
        (tmp_path / "empty.jsonl").write_text('{"schema": "raftbed.history/1"}\n')
        assert cli("check", "empty.jsonl")[0] == 2

    def test_a_malformed_history_is_named_with_its_line(self, cli, tmp_path):
        (tmp_path / "odd.jsonl").write_text('{"index": 0}\n{}\n')
        code, _, err = cli("check", "odd.jsonl")
        assert code == 254
        assert "odd.jsonl: line 1" in err

    def test_a_directory_that_is_no_run_is_named(self, cli, tmp_path):
        code, _, err = cli("check", tmp_path)
        assert code == 255
        assert "is not a run directory" in err


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
        make_run(tmp_path, state="running")
        assert "not checked" in cli("list", "runs")[1]


def test_help_is_quick_to_write_and_names_the_first_step():
    ended = subprocess.run([sys.executable, "-m", "raftbed.cli", "--help"], capture_output=True, text=True, check=False)
    assert "raftbed run partition-test" in ended.stdout
