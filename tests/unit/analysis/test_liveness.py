"""Once all faults have ended: is there a leader, is everyone served, do all nodes catch up? If not, in what words?"""

from __future__ import annotations

from raftbed.analysis import liveness, synced_before_sent
from raftbed.analysis.operations import Span
from raftbed.model import SECOND
from raftbed.store import RunEvent, StatusSample

NODES = ("n1", "n2", "n3")


def phases(*, clients=1.0, recovery=20.0, reads=21.0, settle=22.0):
    times = {"start": 0.0, "clients": clients, "heal": recovery, "recovery": recovery, "final-reads": reads}
    if settle is not None:
        times["settle"] = settle
    return [RunEvent(int(time * SECOND), "phase", name) for name, time in times.items()]


def sample(at, node, *, term=3, role="follower", applied=10, reachable=True):
    if not reachable:
        return StatusSample(int(at * SECOND), node, reachable=False)
    return StatusSample(int(at * SECOND), node, True, role, term, "n1", 10, 10, applied)


def read(key="r0", type_="ok", at=21.5):
    call = int(at * SECOND)
    return Span(0, "read", key, None, 1, call, call + 1000, type_, None if type_ == "ok" else "no-leader: none", "n1")


def judge(*, events=None, status=None, operations=None):
    last = [sample(22.0, node) for node in NODES]
    return liveness.judge(
        [read()] if operations is None else operations,
        last if status is None else status,
        events or phases(),
        nodes=NODES,
        bound=15.0,
    )


def test_a_cluster_that_came_back_is_valid():
    assert judge().validity == "valid"


def test_a_run_that_did_not_wait_is_unknown():
    assert judge(events=phases(settle=None)).validity == "unknown"


def test_endless_elections_are_told_by_the_terms():
    status = [sample(20.0 + turn, node, term=5 + turn, role="candidate") for turn in range(15) for node in NODES]
    verdict = judge(events=phases(reads=35.0, settle=36.0), status=status)
    assert verdict.validity == "invalid"
    assert "endless elections, the term rose from 5 to 19 in 15.0 s" in verdict.summary


def test_nobody_who_leads_and_terms_that_stand_still_are_told_apart():
    status = [sample(20.0 + turn, node) for turn in range(15) for node in NODES]
    verdict = judge(events=phases(reads=35.0, settle=36.0), status=status)
    assert verdict.validity == "invalid"
    assert "nobody led, and the term stayed at 3" in verdict.summary


def test_a_node_that_never_answers_is_named():
    status = [sample(20.0 + turn, node, reachable=node != "n2") for turn in range(15) for node in NODES]
    verdict = judge(events=phases(reads=35.0, settle=36.0), status=status)
    assert "n2 did not answer for 15.0 s" in verdict.summary


def test_no_leader_before_any_fault_is_a_violation_too():
    verdict = judge(events=phases(clients=15.0))
    assert verdict.validity == "invalid"
    assert verdict.summary.startswith("Before any fault no leader was found")


def test_a_starved_key_is_a_violation():
    verdict = judge(operations=[read("r0"), read("r1", "fail"), read("r1", "fail")])
    assert verdict.validity == "invalid"
    assert "read of 'r1' failed 2 times in a row" in verdict.summary


def test_a_node_left_behind_is_a_violation():
    verdict = judge(status=[sample(22.0, "n1"), sample(22.0, "n2"), sample(22.0, "n3", applied=7)])
    assert verdict.validity == "invalid"
    assert "n1 10, n2 10, n3 7" in verdict.summary


def test_what_was_not_synced_is_a_violation_and_only_a_simulated_disk_can_tell():
    event = RunEvent(SECOND, "error", "n1 went on ...", {"unsynced": 4, "by": "n1"})
    assert synced_before_sent.judge([event], simulated=True).validity == "invalid"
    assert synced_before_sent.judge([], simulated=True).validity == "valid"
    assert synced_before_sent.judge([], simulated=False).validity == "unknown"
