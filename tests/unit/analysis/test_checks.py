"""Good and bad goldens of the checks that judge a run beside its linearizability."""

from dataclasses import replace

import pytest
from tests_support import HistoryBuilder, make_plan_for_tests, make_run, write_lines

from raftbed.analysis import availability, fault_coverage, node_health, statistics
from raftbed.analysis.checks import SIMPLE_CHECKS, run_checks
from raftbed.analysis.operations import spans, windows
from raftbed.model import SECOND, FaultEvent, FaultStep
from raftbed.store import RunEvent

STEP = FaultStep("f01", "partition", "halves", 1.0, 3.0, ("n1", "n2", "n3"))


def phases(**times: float) -> list[RunEvent]:
    return [RunEvent(int(at * SECOND), "phase", name.replace("_", "-")) for name, at in times.items()]


def ledger(*states: tuple[str, float], fault="f01", **detail) -> list[FaultEvent]:
    return [FaultEvent(int(at * SECOND), fault, "partition", "halves", s, ("n1",), detail) for s, at in states]


PROVED_AND_HEALED = ledger(("injected", 1.0), ("proved", 1.2), ("healed", 3.0))


def steady(until: float = 6.0, every: float = 0.1, skip: tuple[float, float] = (99, 99)):
    """Writes and reads of one client, but for a time in which nothing succeeds."""
    history = HistoryBuilder()
    at, value = 0.0, 0
    while at < until:
        if not skip[0] <= at < skip[1]:
            value += 1
            history.op(0, "write", "x", value, call=at, end=at + 0.02)
            history.op(0, "read", "x", None, call=at + 0.03, end=at + 0.05, result=value)
        at = round(at + every, 6)
    return spans(history.sorted())


def refused(*at: float):
    """Reads that fail at once."""
    history = HistoryBuilder()
    for time in at:
        history.op(0, "read", "x", None, call=time, end=time + 0.01, type="fail", error="no-leader")
    return spans(history.sorted())


def served(*times: tuple[float, float]):
    """Reads of one client each."""
    history = HistoryBuilder()
    for process, (call, end) in enumerate(times):
        history.op(process, "read", "x", None, call=call, end=end, result=1)
    return spans(history.sorted())


def every(seconds: float, *, begin: float, end: float) -> list[float]:
    return [begin + number * seconds for number in range(int((end - begin) / seconds))]


class TestAvailability:
    def judge(self, operations, events=(), schedule=(STEP,), faults=PROVED_AND_HEALED):
        return availability.judge(operations, windows(schedule, faults), events, recovery_timeout=5.0)

    def test_service_after_each_heal_is_measured(self):
        events = phases(clients=0, heal=6, recovery=6.0, final_reads=6.1)
        operations = steady(until=7.0, skip=(1.0, 3.5))
        verdict = self.judge(operations, events)
        assert verdict.validity == "valid"
        assert verdict.details["recoveries"][0]["seconds"] == pytest.approx(0.52)
        assert verdict.details["longest_gap"] == pytest.approx(2.57)
        assert verdict.details["final_recovery"] == pytest.approx(0.02)

    def test_a_cluster_that_never_serves_again_is_invalid(self):
        events = phases(clients=0, heal=6, recovery=6.0, final_reads=6.1, ended=14.0)
        verdict = self.judge(steady(until=5.0) + refused(*every(0.5, begin=6.1, end=11.6)), events)
        assert (verdict.validity, verdict.summary) == (
            "invalid",
            "Nothing succeeded any more after the final heal, though clients asked for 5.01 s; the plan allows 5 s.",
        )

    def test_serving_too_late_is_invalid(self):
        events = phases(clients=0, heal=6, recovery=6.0, final_reads=7.0, ended=21.0)
        late = [span for span in steady(until=21.0) if span.call > 20 * SECOND]
        asked = refused(*every(0.5, begin=7.0, end=20.0))
        verdict = self.judge(steady(until=5.0) + asked + late, events)
        assert (verdict.validity, verdict.details["final_asked"]) == ("invalid", pytest.approx(13.05))

    def test_an_answer_that_was_awaited_for_too_long_is_invalid(self):
        verdict = self.judge(steady(until=5.0) + served((6.0, 11.5)), phases(clients=0, heal=6, recovery=6.0))
        assert verdict.validity == "invalid"
        assert "clients asked for 5.50 s until an operation succeeded" in verdict.summary

    # The controller waits for every node before its final reads, and in vain where one is slow. A cluster whose
    # majority serves all the time is then asked late.
    @pytest.mark.parametrize(
        "asked",
        [
            pytest.param([(20.1, 20.12)], id="one client"),
            pytest.param([(20.1, 20.13), (20.11, 20.12)], id="two clients"),
            pytest.param([(10.99, 11.02), (10.991, 11.01)], id="just before the time was over"),
        ],
    )
    def test_a_success_that_was_asked_for_too_late_accuses_nobody(self, asked):
        verdict = self.judge(steady(until=5.0) + served(*asked), phases(clients=0, heal=6, recovery=6.0))
        assert verdict.validity == "unknown"
        assert "may have been able to serve before" in verdict.summary

    def test_what_was_first_asked_for_too_late_and_refused_accuses_nobody(self):
        # An election at this moment, say; 5 s before nobody asked.
        events = phases(clients=0, heal=6, recovery=6.0, final_reads=11.0, ended=14.0)
        verdict = self.judge(steady(until=5.0) + refused(11.0, 11.99), events)
        assert (verdict.validity, verdict.summary) == (
            "unknown",
            "Nothing succeeded after the final heal, but clients asked for 1.00 s only; the plan allows 5 s.",
        )

    def test_a_refusal_says_nothing_of_the_time_in_which_nobody_asked(self):
        events = phases(clients=0, heal=6, recovery=6.0, final_reads=7.0, ended=21.0)
        operations = steady(until=5.0) + refused(7.0)
        assert self.judge(operations + served((20.0, 20.02)), events).validity == "unknown"
        assert self.judge(operations + refused(20.0), events).validity == "unknown"

    def test_two_refusals_do_not_fill_the_shortest_time_that_a_plan_can_allow(self):
        events = phases(clients=0, heal=6, recovery=6.0, ended=21.0)
        operations = steady(until=5.0) + refused(6.1, 7.1)
        assert availability.judge(operations, (), events, recovery_timeout=1.0).validity == "unknown"

    def test_one_slow_node_that_was_asked_alone_is_not_the_cluster(self):
        events = phases(clients=0, heal=6, recovery=6.0, ended=14.0)
        times = every(0.5, begin=6.1, end=12.0)

        def verdict(*asked: str):
            history = HistoryBuilder()
            for number, at in enumerate(times):  # all are sent on to a leader that answers nobody
                node = asked[number % len(asked)]
                history.op(0, "read", "x", None, call=at, end=at + 0.1, type="fail", node=node)
                history.ops[-1] = replace(history.ops[-1], node="n3")
            operations = steady(until=5.0) + spans(history.sorted())
            return availability.judge(operations, (), events, recovery_timeout=5.0, nodes=("n1", "n2", "n3"))

        assert verdict("n1").validity == "unknown"
        assert "clients asked only n1" in verdict("n1").summary
        assert verdict("n1", "n2").validity == "invalid"

    def test_an_operation_without_an_end_is_not_taken_for_waiting(self):
        history = HistoryBuilder().op(0, "read", "x", None, call=6.1, end=None)
        operations = steady(until=5.0) + spans(history.sorted()) + refused(6.2)
        assert self.judge(operations, phases(clients=0, heal=6, recovery=6.0, ended=21.0)).validity == "unknown"

    def test_giving_up_early_accuses_nobody(self):
        # Collecting logs may take long after the last read; that is no time in which the cluster was asked.
        events = phases(clients=0, heal=6, recovery=6.0, final_reads=6.1, collect=7.0, ended=30.0)
        assert self.judge(steady(until=5.0) + refused(6.1, 6.9), events).validity == "unknown"

    def test_a_heal_that_failed_accuses_nobody(self):
        events = phases(clients=0, heal=6, recovery=7.0, final_reads=11.0, ended=12.0)
        events.append(RunEvent(int(6.5 * SECOND), "error", "A fault could not be healed: f01: still cut."))
        verdict = self.judge(steady(until=5.0) + refused(13.0), events)
        assert verdict.validity == "unknown"
        assert "f01: still cut" in verdict.summary

    @pytest.mark.parametrize(
        ("marks", "said"),
        [
            (phases(clients=0), "cut off before its final heal"),
            (phases(clients=0, heal=6, recovery=6.0, ended=7.0), "no operation was tried"),
        ],
    )
    def test_a_recovery_that_nobody_saw_is_unknown(self, marks, said):
        verdict = self.judge(steady(until=5.0), marks)
        assert verdict.validity == "unknown"
        assert said in verdict.summary

    def test_a_heal_after_which_nothing_succeeded_is_not_passed_over(self):
        second = FaultStep("f02", "partition", "one", 4.0, 5.5, ("n1", "n2", "n3"))
        faults = [*PROVED_AND_HEALED, *ledger(("injected", 4.0), ("proved", 4.2), ("healed", 5.5), fault="f02")]
        verdict = self.judge(steady(until=5.0), phases(clients=0), schedule=(STEP, second), faults=faults)
        assert "of 1 of 2 heals" in verdict.summary

    def test_silence_at_the_end_of_a_run_that_was_cut_off_counts(self):
        verdict = self.judge(steady(until=2.0) + refused(9.99), phases(clients=0))
        assert verdict.details["longest_gap"] == pytest.approx(8.05)

    def test_nothing_acknowledged_is_unknown(self):
        assert self.judge([]).validity == "unknown"


class TestStatistics:
    def test_counts_and_latencies(self):
        history = HistoryBuilder()
        history.op(0, "write", "x", 1, call=0, end=0.010)
        history.op(0, "read", "x", None, call=1, end=1.020, result=1)
        history.op(0, "cas", "x", [5, 6], call=2, end=2.001, type="fail", error="precondition-failed: no")
        history.op(1, "write", "x", 2, call=3, end=4, type="info", error="timeout")
        history.op(2, "write", "x", 3, call=5, end=None)
        verdict = statistics.judge(spans(history.sorted()))
        assert verdict.validity == "valid"
        assert (verdict.details["ok"], verdict.details["fail"], verdict.details["info"]) == (2, 1, 2)
        assert verdict.details["by_f"]["write"]["latency"]["p50"] == pytest.approx(0.010)
        assert verdict.details["errors"] == {"precondition-failed": 1, "timeout": 1, "no completion": 1}

    @pytest.mark.parametrize(
        ("f", "said"),
        [("read", "No write succeeded"), ("write", "No read succeeded"), (None, "No operation succeeded")],
    )
    def test_too_little_to_judge_is_unknown_and_named(self, f, said):
        history = HistoryBuilder()
        if f:
            history.op(0, f, "x", 1, call=0, end=1, result=None)
        verdict = statistics.judge(spans(history.sorted()))
        assert verdict.validity == "unknown"
        assert said in verdict.summary

    def test_nearest_rank_percentiles(self):
        assert [statistics.percentile([1.0, 2.0, 3.0, 4.0], p) for p in (50, 90, 100)] == [2.0, 4.0, 4.0]


class TestNodeHealth:
    def test_quiet_logs_are_valid(self, tmp_path):
        log = tmp_path / "node.log"
        log.write_text("INFO all is well: no need to panic\nWARNING peer n2 is unreachable\n")
        assert node_health.judge({"n1": log}, []).validity == "valid"

    @pytest.mark.parametrize(
        "line", ["Traceback (most recent call last):", "Fatal Python error: Aborted", "12:00 CRITICAL raftbed: disk"]
    )
    def test_a_loud_line_is_quoted(self, tmp_path, line):
        log = tmp_path / "node.log"
        log.write_text(f"INFO fine\n{line}\n  more\n")
        verdict = node_health.judge({"n1": log}, [])
        assert verdict.validity == "invalid"
        assert line in verdict.details["findings"][0]["lines"]

    def test_a_death_that_no_fault_caused_is_invalid(self):
        died = RunEvent(1, "error", "n2: its process died by itself.", {"node": "n2", "log": "Killed"})
        verdict = node_health.judge({}, [died])
        assert verdict.validity == "invalid"
        assert "n2: its process died by itself." in verdict.summary

    def test_errors_that_are_not_about_a_node_are_no_finding(self, tmp_path):
        log = tmp_path / "node.log"
        log.write_text("")
        assert node_health.judge({"n1": log}, [RunEvent(1, "error", "Could not fetch.")]).validity == "valid"

    def test_a_log_that_was_not_read_is_no_pass(self, tmp_path):
        log = tmp_path / "node.log"
        log.write_text("")
        assert node_health.judge({"n1": None, "n2": None}, []).validity == "unknown"
        verdict = node_health.judge({"n1": log, "n2": None}, [])
        assert (verdict.validity, "n2" in verdict.summary) == ("unknown", True)

    def test_both_ends_of_a_huge_log_are_read(self, tmp_path):
        log = tmp_path / "node.log"
        with log.open("wb") as stream:
            stream.truncate(20 << 20)
            stream.seek(0, 2)
            stream.write(b"\nTraceback (most recent call last):\n")
        assert node_health.judge({"n1": log}, []).validity == "invalid"


class TestFaultCoverage:
    def judge(self, faults, operations=None, schedule=(STEP,), **more):
        operations = steady() if operations is None else operations
        return fault_coverage.judge(windows(schedule, faults), operations, **more)

    def test_proved_and_healed_under_load_is_valid(self):
        verdict = self.judge(PROVED_AND_HEALED)
        assert verdict.validity == "valid"
        assert verdict.details["faults"][0]["operations"] > 10

    def test_no_planned_faults_is_valid_and_said(self):
        assert self.judge([], schedule=()).summary == "No faults were planned."

    @pytest.mark.parametrize(
        ("faults", "said"),
        [
            ([], "No fault took effect"),
            (ledger(("injected", 1.0), ("healed", 3.0)), "No fault took effect"),
            (ledger(("injected", 1.0), ("proved", 1.2)), "f01 was not healed"),
            ([*PROVED_AND_HEALED, *ledger(("failed", 2.0), error="no nft")], "f01 failed: no nft"),
        ],
    )
    def test_faults_without_effect_make_the_run_unknown(self, faults, said):
        verdict = self.judge(faults)
        assert verdict.validity == "unknown"
        assert said in verdict.summary

    def test_a_fault_that_met_no_operation_makes_the_run_unknown(self):
        verdict = self.judge(PROVED_AND_HEALED, operations=steady(until=0.5))
        assert "no operation was under way during f01" in verdict.summary

    def test_a_stopped_run_is_judged_by_what_was_due(self):
        later = FaultStep("f02", "partition", "one", 9.0, 10.0, ("n1", "n2", "n3"))
        stopped = self.judge(PROVED_AND_HEALED, schedule=(STEP, later), stopped_after=4.0)
        assert stopped.validity == "valid"
        assert "1 more were planned for after the run was stopped" in stopped.summary
        assert self.judge(PROVED_AND_HEALED, schedule=(STEP, later)).validity == "unknown"

    def test_a_fault_that_the_end_of_the_run_cut_short_is_not_held_against_it(self):
        cut_short = FaultStep("f02", "partition", "one", 4.0, 9.0, ("n1", "n2", "n3"))
        faults = [*PROVED_AND_HEALED, *ledger(("injected", 4.1), ("healed", 4.3), fault="f02")]
        assert self.judge(faults, schedule=(STEP, cut_short), stopped_after=4.2).validity == "valid"
        assert self.judge(faults, schedule=(STEP, cut_short)).validity == "unknown"

    def test_a_stopped_run_heals_too(self):
        unhealed = ledger(("injected", 1.0), ("proved", 1.2))
        assert self.judge(unhealed, stopped_after=4.0).validity == "unknown"
        killed = self.judge(unhealed, stopped_after=4.0, healed_all=False)
        assert killed.validity == "valid"
        assert "healed" not in killed.summary

    def test_an_empty_schedule_is_no_pass_where_faults_were_wanted(self):
        assert self.judge([], schedule=(), wanted=("partition",)).validity == "unknown"

    def test_a_kill_of_the_dead_is_not_counted_as_an_effect(self):
        def kill(fault: str, node: str, *states: tuple[str, float], **detail) -> list[FaultEvent]:
            return [FaultEvent(int(at * SECOND), fault, "kill", "one", s, (node,), detail) for s, at in states]

        steps = [FaultStep(f"f0{n}", "kill", "one", 1.0, 5.0, ("n1", "n2")) for n in (1, 2)]
        first = kill("f01", "n1", ("injected", 1.0), ("proved", 1.1), ("healed", 4.0))
        late = (("injected", 2.0), ("proved", 2.1), ("healed", 5.0))
        verdict = self.judge([*first, *kill("f02", "n1", *late, leader=None)], schedule=steps)
        assert verdict.summary == (
            "1 of 2 faults took effect, were proved and healed, and met operations."
            " f02 had no effect of its own: n1 had been killed before. f02 found no leader to aim at."
        )
        other = self.judge([*first, *kill("f02", "n2", *late, leader="n2")], schedule=steps)
        assert other.summary == "2 of 2 faults took effect, were proved and healed, and met operations."

    def test_a_fault_that_acted_on_nobody_is_no_pass(self):
        nobody = [FaultEvent(event.time, "f01", "partition", "bridge", event.state) for event in PROVED_AND_HEALED]
        assert "f01 acted on no node" in self.judge(nobody).summary


def test_a_check_that_breaks_is_unknown_and_stops_no_other(tmp_path, monkeypatch):
    def broken(run):
        raise ZeroDivisionError("oops")

    monkeypatch.setitem(SIMPLE_CHECKS, "statistics", broken)  # type: ignore[arg-type]
    run = make_run(tmp_path)
    write_lines(run.history_path, HistoryBuilder().op(0, "write", "x", 1, call=0, end=1).sorted())
    results = run_checks(run, ["statistics", "node-health"], time_limit=10, memory_limit=1 << 30)
    assert [verdict.checker for verdict in results.verdicts] == ["statistics", "node-health"]
    assert "ZeroDivisionError" in results.verdicts[0].summary
    assert results.validity == "unknown"


def test_a_run_cut_off_before_anything_happened_is_unknown_not_an_error(tmp_path):
    run = make_run(tmp_path, make_plan_for_tests(schedule=(STEP,), faults=("partition",)), state="running")
    results = run_checks(run, run.plan().checks, time_limit=10, memory_limit=1 << 30)
    assert results.validity == "unknown"
    assert {verdict.validity for verdict in results.verdicts} == {"unknown"}
