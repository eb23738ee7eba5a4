"""Run directories: private, complete, and readable however far a run came."""

import stat

import pytest

from raftbed.errors import StoreError
from raftbed.model import FaultEvent, FaultStep, Plan, Verdict
from raftbed.record import LineWriter
from raftbed.store import Manifest, Results, RunEvent, StatusSample, Store

PLAN = Plan(
    test="partition-test",
    system="raft",
    hosts="local",
    nodes=("n1", "n2", "n3"),
    workload="register",
    faults=("partition",),
    checks=("linearizable",),
    seed=7,
    time_limit=20.0,
    concurrency=6,
    rate=100.0,
    keys=4,
    operation_timeout=2.0,
    recovery_timeout=10.0,
    node_options={"check_quorum": False},
    schedule=(FaultStep("f01", "partition", "halves", 1.0, 3.0, ("n2", "n1", "n3"), "a plain cut"),),
)


def test_plan_manifest_and_results_come_back_as_they_were_written(tmp_path):
    run = Store(tmp_path / "store").new_run("partition-test")
    manifest = Manifest(
        run="partition-test/now", state="running", command="raftbed run", started="2026-01-01T00:00:00Z"
    )
    results = Results("partition-test/now", "invalid", (Verdict("linearizable", "invalid", "no", {"keys": {}}),))
    run.write_plan(PLAN)
    run.write_manifest(manifest)
    run.write_results(results)
    assert (run.plan(), run.manifest(), run.results()) == (PLAN, manifest, results)


def test_what_was_not_written_yet_reads_as_empty(tmp_path):
    run = Store(tmp_path).new_run("smoke-test")
    assert (run.history(), run.faults(), run.status(), run.events(), run.results()) == ([], [], [], [], None)
    assert run.node_file("n1", "node.log") is None


def test_lines_come_back_as_records(tmp_path):
    run = Store(tmp_path).new_run("smoke-test")
    fault = FaultEvent(5, "f01", "kill", "one", "proved", ("n1",), {"pid": 12})
    sample = StatusSample(6, "n1", reachable=True, role="leader", term=3)
    event = RunEvent(7, "stall", "stood still", {"seconds": 0.5})
    for path, record in ((run.faults_path, fault), (run.status_path, sample), (run.events_path, event)):
        with LineWriter(path) as writer:
            writer.write(record)
    assert (run.faults(), run.status(), run.events()) == ([fault], [sample], [event])


def test_everything_is_private(tmp_path):
    run = Store(tmp_path / "store").new_run("smoke-test")
    run.write_plan(PLAN)
    node = run.node_directory("n1")
    for directory in (tmp_path / "store", run.path.parent, run.path, node.parent, node):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((run.path / "plan.json").stat().st_mode) == 0o600


def test_latest_is_the_run_made_last(tmp_path):
    store = Store(tmp_path)
    first, second = store.new_run("smoke-test"), store.new_run("crash-test")
    assert first.path != second.path
    assert store.latest().path == second.path.resolve()


def test_runs_made_in_the_same_instant_have_directories_of_their_own(tmp_path):
    store = Store(tmp_path)
    assert len({store.new_run("smoke-test").path for _ in range(5)}) == 5


def test_an_empty_store_says_how_to_fill_it(tmp_path):
    with pytest.raises(StoreError, match="raftbed run partition-test"):
        Store(tmp_path).latest()


def test_a_store_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--store"):
        Store(tmp_path / "file").new_run("smoke-test")


def test_a_directory_that_is_no_run_is_named(tmp_path):
    from raftbed.store import RunDirectory

    with pytest.raises(StoreError, match=r"is not a run directory: it has no plan\.json"):
        RunDirectory(tmp_path).plan()


def test_a_malformed_plan_is_named_with_the_place(tmp_path):
    run = Store(tmp_path).new_run("smoke-test")
    (run.path / "plan.json").write_text('{"test": 3}')
    with pytest.raises(StoreError, match=r"plan\.json: is malformed"):
        run.plan()


def test_results_that_are_not_utf8_are_named(tmp_path):
    run = Store(tmp_path / "store").new_run("partition-test")
    run.results_path.write_bytes('{"run":"café"}'.encode("latin-1"))
    with pytest.raises(StoreError, match=r"results\.json: is malformed: it holds the byte 0xe9"):
        run.results()
