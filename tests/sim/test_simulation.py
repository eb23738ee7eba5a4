"""Simulated runs: every fault of the simulator takes, heals, and leaves a correct Raft correct."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sim_support import broken, judged, plan_of, step

from raftbed import bugs, suite
from raftbed.faults.shapes import MOMENT_SHAPES
from raftbed.model import INVALID, VALID
from raftbed.nodes.raft import AppendEntriesResponse, VoteResponse
from raftbed.nodes.raft.config import MILLISECOND
from raftbed.nodes.raft.events import ClientWrite, TransferLeadership
from raftbed.schedule import SIMULATED_SHAPES
from raftbed.sim.child import simulate
from raftbed.sim.faults import KINDS
from raftbed.sim.moments import MOMENTS
from raftbed.sim.simulation import Call, Simulation
from raftbed.workloads.base import Request


def test_the_tables_of_faults_agree():
    assert set(KINDS) == {*suite.FAULTS, *suite.SIMULATED_FAULTS}
    assert set(SIMULATED_SHAPES) == {*suite.SIMULATED_FAULTS, *suite.SHELL_FAULTS}
    assert tuple(MOMENTS) == tuple(MOMENT_SHAPES)


@pytest.mark.parametrize("seed", range(12))
def test_a_correct_raft_survives_chaos(seed):
    results = judged(Simulation(plan_of(seed=seed)).run())
    assert not broken(results)


@pytest.mark.parametrize("test", ["partition-test", "crash-test", "smoke-test"])
def test_the_ordinary_tests_run_in_virtual_time(test):
    results = judged(Simulation(plan_of(test)).run())
    assert results.validity == VALID, broken(results)


@pytest.mark.parametrize("kind", sorted(set(suite.SIMULATED_FAULTS) - {"moment", "membership", "transfer"}))
@pytest.mark.parametrize("shape", ["leader", "majority"])
def test_each_kind_of_fault_is_injected_proved_and_healed(kind, shape):
    plan = plan_of(time_limit=2.5, schedule=[step(kind, shape, 0.5, 1.5)])
    recording = Simulation(plan).run()
    assert [event.state for event in recording.faults] == ["injected", "proved", "healed"]
    assert len(recording.faults[0].nodes) == (1 if shape == "leader" else 3)
    assert judged(recording).validity == VALID


@pytest.mark.parametrize("moment", MOMENT_SHAPES)
def test_moments_strike_when_they_come(moment):
    needs_elections = [step("kill", "leader", at, at + 0.6, number=int(at)) for at in (1.0, 2.0, 3.0)]
    schedule = [step("moment", moment, 0.1, 4.0, number=9), *needs_elections]
    plan = plan_of(time_limit=4.5, schedule=schedule)
    recording = Simulation(plan).run()
    struck = [event.detail["struck"] for event in recording.faults if event.fault == "f09" and event.state == "healed"]
    assert not broken(judged(recording))
    if "truncate" not in moment:  # which nobody can make happen
        assert struck != [[]]


def test_no_answer_leaves_before_what_it_promises_is_synced():
    answers, keep_alives = [], []

    class Audited(Simulation):
        def answered(self, node, message, sender, response):
            answers.append(message)
            if node.writing:  # what does not wait promises nothing but what is on disk: the term
                term = node._core.durable_hard_state.current_term
                if node._core.leadership is not None:  # a leader refuses
                    assert response in (
                        AppendEntriesResponse(term, success=False),
                        VoteResponse(term, vote_granted=False),
                    )
                else:
                    keep_alives.append(message)
                    assert response == AppendEntriesResponse(term, success=False)
                    assert message.request.entries == ()
            else:
                assert not node.disk.unsynced

    recording = Audited(plan_of(seed=5, time_limit=5.0)).run()
    assert len(answers) > 500
    assert len(keep_alives) > 10
    assert not broken(judged(recording))


def leaders_with_slow_disks(factor, are_slow, **node_options):
    """Who led in which term, when from 2 s on syncs of those that `are_slow` take `factor` times 0.2 to 1.2 ms."""
    simulation = Simulation(plan_of(time_limit=8.0, schedule=[], node_options=node_options))

    def slow_down():
        for node in simulation.nodes.values():
            if are_slow(node.metrics().state):
                node.slow_disk["test"] = factor

    simulation.timeline.at(2 * 10**9, slow_down)
    recording = simulation.run()
    assert any(node.slow_disk for node in simulation.nodes.values())
    assert not broken(judged(recording))
    return {(status.term, status.node) for status in recording.status if status.role == "leader"}


@pytest.mark.parametrize("slow", ["leader", "follower"])
def test_a_slow_disk_alone_is_no_reason_for_an_election(slow):
    """Its syncs take 0.16 to 1.5 s; a follower that hears nothing for 0.15 to 0.3 s stands for election."""
    assert len(leaders_with_slow_disks(800.0, lambda state: state == slow, disk_stall_timeouts=6)) == 1


def test_a_leader_whose_disk_hangs_is_replaced():
    """Its syncs take 1.5 s, and `disk_stall_timeouts` lets it be heard for 1.2 s."""
    assert len(leaders_with_slow_disks(100_000.0, lambda state: state == "leader")) > 1


def test_a_leader_whose_disk_always_works_hears_what_waits_for_it():
    """Else nobody could depose a leader for as long as clients write to it."""
    simulation = Simulation(plan_of(time_limit=4.0, schedule=[]))
    timeline, answered = simulation.timeline, {}

    class Asking:
        def __init__(self, what):
            self.what = what

        def answer(self, node, value):
            answered[self.what] = timeline.now

        def reset(self, node):
            pass

    def write(leader, number):
        command = {"op": "put", "key": "busy", "value": number}
        leader.take(ClientWrite(Asking(number), command, command))

    def press():
        (leader,) = (node for node in simulation.nodes.values() if node.metrics().state == "leader")
        leader.slow_disk["test"] = 20.0  # 4 to 24 ms
        for number in range(1000):
            timeline.after(number * MILLISECOND, write, leader, number)
        timeline.after(100 * MILLISECOND, leader.take, TransferLeadership(Asking("transfer")))

    timeline.at(2 * 10**9, press)
    simulation.run()
    assert answered["transfer"] < 2.5 * 10**9


def test_nodes_leave_the_cluster_and_come_back():
    # Followers: a leader that is removed itself may be gone before it has told the other that it is out.
    plan = plan_of(time_limit=6.0, schedule=[step("membership", "followers-minority", 1.0, 3.0)])
    recording = Simulation(plan).run()
    assert recording.counts["membership_changes"] == 2
    removed = [sample for sample in recording.status if sample.role == "non-voter" and sample.time > 10**9]
    assert len(recording.faults[0].nodes) == 2
    assert {sample.node for sample in removed} == set(recording.faults[0].nodes)
    assert judged(recording).validity == VALID


def test_a_change_that_nobody_acknowledged_in_time_is_undone_all_the_same():
    # Without the two that are down, the three that are to stay have no majority: the change waits for them.
    down = step("kill", "followers-minority", 1.0, 2.9)
    removed = step("membership", "followers-minority", 1.05, 2.3, number=2)
    removed = replace(removed, order=removed.order[::-1])
    recording = Simulation(plan_of(time_limit=4.0, schedule=[down, removed])).run()
    assert {sample.role for sample in recording.status[-5:]} == {"leader", "follower"}
    assert not broken(judged(recording))


def test_the_leadership_is_moved():
    plan = plan_of(time_limit=4.0, schedule=[step("transfer", "leader", 1.0, 2.0)])
    recording = Simulation(plan).run()
    assert recording.counts["transfers"] == 1
    assert recording.status[-1].leader == recording.faults[0].detail["target"]
    assert judged(recording).validity == VALID


def test_a_node_that_stops_for_a_full_disk_is_no_finding_and_comes_back():
    plan = plan_of(time_limit=3.0, schedule=[step("full-disk", "leader", 1.0, 2.0)])
    recording = Simulation(plan).run()
    assert any("No space left" in line for lines in recording.logs.values() for line in lines)
    assert judged(recording).validity == VALID
    assert recording.counts["boots"] == 6


def test_power_failures_lose_what_was_not_synced():
    schedule = [step("power", "all", at, at + 0.4, number=int(at)) for at in range(1, 8)]
    recording = Simulation(plan_of(time_limit=8.5, rate=150.0, schedule=schedule)).run()
    lost = [event.detail.get("lost_bytes", {}) for event in recording.faults if event.state == "injected"]
    assert any(files for nodes in lost for files in nodes.values())
    assert not broken(judged(recording))


def test_a_cluster_that_cannot_elect_is_a_violation_with_its_explanation():
    options = {"election_timeout_min": 150, "election_timeout_max": 151}
    schedule = [step("delay", "all", 0.0, 1.0)]
    plan = plan_of(time_limit=2.0, recovery_timeout=1.0, node_options=options, schedule=schedule)
    simulation = Simulation(plan)
    for source in plan.nodes:
        for target in plan.nodes:
            simulation.nemesis.network.link(source, target).delay["for ever"] = (140_000_000, 150_000_000, 1.0)
            simulation.nemesis.network.link(source, target).changed()
    results = judged(simulation.run())
    assert results.validity == INVALID
    assert any(line.startswith("liveness:") and "no leader was found" in line for line in broken(results))


def test_a_script_takes_the_place_of_the_generators():
    script = [
        Call(0.5, 0, Request("write", "r0", 7)),
        Call(1.0, 1, Request("read", "r0")),
        Call(None, 2, Request("read", "r0")),
    ]
    recording = Simulation(plan_of("smoke-test"), script=script).run()
    ended = [(op.f, op.type, op.value) for op in recording.ops if op.type != "invoke"]
    assert ended == [("write", "ok", 7), ("read", "ok", 7), ("read", "ok", 7)]


@pytest.mark.parametrize("bug", ["stale-leader-read", "restart-applies-wrong"])
def test_a_planted_bug_is_found_and_harms_nobody_else(bug):
    plans = [plan_of(bugs.load(bug).test, seed=seed, bug=bug) for seed in range(20)]
    assert any(broken(judged(simulate(plan))) for plan in plans)
    assert judged(Simulation(plan_of(seed=0)).run()).validity == VALID
