"""Nodes that talk without end are a finding, with its figures; where nobody counted, nothing is known."""

from __future__ import annotations

from raftbed.analysis import liveness, message_storm
from raftbed.model import SECOND
from raftbed.store import RunEvent


def storm(at: float, node: str, sent: int) -> RunEvent:
    busy = {"node": node, "sent": sent, "reasons": 300}
    return RunEvent(int(at * SECOND), "warning", f"{node} sent {sent} messages ...", {"storm": busy})


ENDED = RunEvent(9 * SECOND, "phase", "ended", {"busiest": {"node": "n1", "sent": 400, "reasons": 800}})


def test_a_storm_is_told_by_its_worst_second_and_its_beginning():
    verdict = message_storm.judge([storm(3.0, "n1", 20_000), storm(4.0, "n2", 60_000), ENDED])
    assert verdict.validity == "invalid"
    assert "n2 sent 60000 messages within a second, when it had reason for 300 at most" in verdict.summary
    assert "since about 2.0 s" in verdict.summary
    assert verdict.details["nodes"] == ["n1", "n2"]


def test_without_a_storm_the_busiest_second_is_shown():
    verdict = message_storm.judge([ENDED])
    assert verdict.validity == "valid"
    assert "n1 came closest, with 400 messages within a second, and reason for 800" in verdict.summary


def test_where_it_was_not_counted_to_the_end_nothing_is_known():
    assert message_storm.judge([]).validity == "unknown"


def test_the_liveness_of_a_simulation_that_was_cut_off_is_unknown():
    phases = ["clients", "heal", "recovery", "final-reads", "settle"]
    events = [RunEvent(SECOND, "phase", name) for name in phases]
    cut = RunEvent(2 * SECOND, "warning", "The simulation was cut off ...", {"cut_off": True})
    verdict = liveness.judge([], [], [*events, cut], nodes=("n1",), bound=15.0)
    assert verdict.validity == "unknown"
    assert "cut off" in verdict.summary
