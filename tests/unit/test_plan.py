"""A plan says everything a run is; what cannot be run is refused with the remedy."""

from pathlib import Path

import msgspec
import pytest

from raftbed.errors import PlanError, UsageError
from raftbed.plan import PlanSettings, make_plan, override, read_settings, repeat_command

PARTITION = PlanSettings(test="partition-test")


def test_defaults_come_from_the_test():
    plan = make_plan(PARTITION, seed=3)
    assert plan.nodes == ("n1", "n2", "n3", "n4", "n5")
    assert (plan.workload, plan.faults, plan.seed, plan.concurrency) == ("register", ("partition",), 3, 10)
    assert plan.node_options["election_timeout_min"] == 500
    assert {step.kind for step in plan.schedule} == {"partition"}


def test_the_same_settings_and_seed_make_the_same_plan():
    assert make_plan(PARTITION, seed=3) == make_plan(PARTITION, seed=3)
    assert make_plan(PARTITION, seed=3).schedule != make_plan(PARTITION, seed=4).schedule


def test_settings_win_over_the_seed_that_was_drawn():
    assert make_plan(override(PARTITION, seed=8), seed=3).seed == 8


def test_concurrency_may_be_a_multiple_of_the_nodes():
    assert make_plan(override(PARTITION, concurrency="3n", nodes=3), seed=1).concurrency == 9


def test_a_test_without_faults_has_no_schedule():
    assert make_plan(PlanSettings(test="smoke-test"), seed=1).schedule == ()


def test_the_command_that_repeats_a_run_makes_the_same_plan():
    from raftbed import cli

    changes = {"nodes": 3, "time_limit": 12.5, "rate": 0.0, "faults": ["kill"], "operation_timeout": 0.7}
    plan = make_plan(override(PARTITION, **changes), seed=5)
    command = repeat_command(plan)
    assert command is not None
    words = command.split()
    context = cli.run.make_context("run", words[2:])
    options = dict(context.params)
    settings = cli._settings(options.pop("test"), options)
    assert make_plan(settings, seed=99) == plan


@pytest.mark.parametrize(
    "changes",
    [{"schedule": []}, {"recovery_timeout": 3.0}, {"node_options": {"check_quorum": False}}, {"nodes": ["a"]}],
)
def test_what_options_cannot_say_is_repeated_from_the_recorded_plan(changes):
    plan = make_plan(override(PARTITION, **changes), seed=5)
    assert repeat_command(plan, Path("store/my runs/plan.json")) == "raftbed run 'store/my runs/plan.json'"
    assert repeat_command(plan) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"test": "paritition-test"},
            r"no test 'paritition-test'. There are: chaos-test, crash-test, partition-test, smoke-test",
        ),
        ({"faults": ["fire"]}, "no fault 'fire'"),
        ({"bug": "fleas"}, "no bug 'fleas'"),
        ({"hosts": "moon"}, "no kind of hosts 'moon'"),
        ({"system": "paxos"}, "no system 'paxos'"),
        ({"nodes": 0}, "nodes: 0 is out of bounds. Choose from 1 to 50"),
        ({"nodes": ["n1", "n1"]}, "not distinct names"),
        ({"nodes": ["../n1"]}, "not distinct names"),
        ({"time_limit": float("nan")}, "time_limit: nan is out of bounds"),
        ({"rate": -1.0}, "rate: -1 is out of bounds"),
        ({"concurrency": "many"}, "'many' is not a number of workers"),
        ({"node_options": {"election_timeout": 5}}, "node_options: election_timeout: no such option; there are: "),
        ({"checks": ["vibes"]}, "vibes does not fit the workload and the system. They have: linearizable"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_remedy(changes, said):
    with pytest.raises(UsageError, match=said):
        make_plan(override(PARTITION, **changes), seed=1)


def test_a_plan_file_says_what_the_command_line_can(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text('test = "crash-test"\nnodes = 3\nseed = 4\n[node_options]\ncheck_quorum = false\n')
    plan = make_plan(read_settings(path), seed=1)
    assert (plan.test, len(plan.nodes), plan.seed) == ("crash-test", 3, 4)
    assert plan.node_options["check_quorum"] is False
    assert plan.node_options["heartbeat_interval"] == 100


def test_a_recorded_plan_repeats_its_schedule_to_the_letter(tmp_path):
    plan = make_plan(PARTITION, seed=3)
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode(plan))
    assert make_plan(read_settings(tmp_path / "plan.json"), seed=77) == plan


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('tset = "crash-test"', "unknown field `tset`.*Keys of a plan: test, system"),
        ('nodes = "five"', r"Expected `int \| array \| null`, got `str` - at `\$.nodes`"),
        ("nodes = ", "is not TOML"),
        ('[[schedule]]\nkind = "kill"', "at `\\$.schedule\\[0\\]`"),
    ],
)
def test_a_malformed_plan_file_is_named_with_the_place(tmp_path, content, said):
    path = tmp_path / "plan.toml"
    path.write_text(content)
    with pytest.raises(PlanError, match=said) as caught:
        read_settings(path)
    assert str(path) in str(caught.value)


def test_a_missing_plan_file_is_named(tmp_path):
    with pytest.raises(PlanError, match="cannot be read: No such file"):
        read_settings(tmp_path / "plan.toml")
