"""How much nodes send, for what reason, and what becomes of a simulation in which they talk without end."""

from __future__ import annotations

from sim_support import judged, plan_of

from raftbed.nodes.raft import Config
from raftbed.nodes.raft.events import Send
from raftbed.nodes.raft.messages import AppendEntriesRequest, InstallSnapshotRequest, MembershipConfig, SnapshotMeta
from raftbed.sim.simulation import Simulation
from raftbed.sim.traffic import Limits, Traffic

NODES = ("n1", "n2", "n3")
BEAT = Send("n2", "append_entries", AppendEntriesRequest(1, "n1", 0, 0, (), 0), 0, 0)
PIECE = Send(
    "n2", "install_snapshot", InstallSnapshotRequest(1, "n1", SnapshotMeta(1, 1, "", MembershipConfig(())), 0), 0, 0
)


def traffic(*, heartbeat: int = 50) -> Traffic:
    return Traffic(NODES, Config("c", heartbeat_interval=heartbeat), Limits())


def send(to: Traffic, count: int, message: Send = BEAT) -> None:
    for _ in range(count):
        to.sent("n1", message)


def storms(of: Traffic, *, requests: int = 0) -> list[str]:
    return [busy.node for busy in of.second_over(requests)]


def test_heartbeats_requests_and_entries_are_reasons_to_send():
    idle = traffic()
    send(idle, 2 * 20)
    assert storms(idle) == []
    assert idle.busiest.sent == 40
    assert idle.busiest.reasons == 2 * (21 + 20)
    busy = traffic()
    busy.appended("n1", {"first": 11, "last": 60})
    send(busy, 500)
    assert storms(busy, requests=100) == []
    assert busy.busiest.reasons == 2 * (21 + 20 + 100 + 50)


def test_many_times_more_than_that_is_a_storm_of_the_node_that_sends_it():
    many = traffic()
    send(many, 10 * 2 * (21 + 20) + 1)
    assert storms(many) == ["n1"]


def test_what_came_in_the_second_before_is_still_a_reason_but_not_for_longer():
    late = traffic()
    late.appended("n1", {"first": 1, "last": 1000})
    storms(late, requests=1000)
    send(late, 20_000)
    assert storms(late, requests=1000) == []
    send(late, 20_000)
    assert storms(late, requests=1000) == ["n1"]


def test_pieces_of_snapshots_are_not_counted():
    large = traffic()
    send(large, 100_000, PIECE)
    assert storms(large) == []


def test_a_simulation_that_takes_far_too_many_events_is_cut_off_and_is_no_pass():
    recording = Simulation(plan_of("smoke-test"), limits=Limits(events_besides=2_000, events=0)).run()
    assert recording.counts["events"] < 2_100
    assert recording.state == "interrupted"
    results = judged(recording)
    assert results.validity == "unknown"
    said = {verdict.checker: verdict.summary for verdict in results.verdicts}
    assert "cut off" in said["liveness"]


def test_clients_that_never_pause_are_reason_enough_for_many_events_within_their_first_second():
    busy = plan_of("smoke-test", time_limit=1.0, rate=0.0, concurrency="10n", keys=100)
    recording = Simulation(busy, limits=Limits(events_besides=2_000)).run()
    assert recording.counts["events"] > 10_000
    assert recording.state == "ended"


def test_a_storm_is_found_by_its_check():
    recording = Simulation(plan_of("smoke-test", time_limit=2.0), limits=Limits(storm=0)).run()
    found = {verdict.checker for verdict in judged(recording).verdicts if verdict.validity == "invalid"}
    assert found == {"message-storm"}


def test_an_ordinary_seed_stays_far_below_its_bounds():
    simulation = Simulation(plan_of("chaos-test", seed=3))
    recording = simulation.run()
    busiest = recording.events[-1].detail["busiest"]
    assert recording.state == "ended"
    assert busiest["sent"] < 3 * busiest["reasons"]
