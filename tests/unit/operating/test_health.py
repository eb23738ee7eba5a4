"""What a status says of a cluster: well only if every node is, and all follow one leader."""

from __future__ import annotations

import pytest

from raftbed.operating.health import NodeReport, clock, disagreements, problems, rows, size, summary, trouble


def node(name: str = "n1", **changes) -> NodeReport:
    """A node that is well, changed as asked."""
    well = {
        "node": name,
        "address": f"10.0.0.{name[1:]}:8400",
        "process": "running",
        "role": "follower",
        "term": 3,
        "leader": "n1",
        "applied": 12,
        "initialized": True,
        "version": "0.1.0",
        "bundle": "0123456789abcdef",
        "disk_free": 5 << 30,
        "clock_offset": 0.001,
        "clock_error": 0.004,
    }
    return NodeReport(**{**well, **changes})


LEADER = node("n1", role="leader")


def test_nodes_that_follow_one_leader_are_well():
    assert problems([LEADER, node("n2"), node("n3")]) == []
    assert summary("default", [LEADER, node("n2")]) == "The cluster default is well."


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (node(process="gone", process_detail="no pid file", role=None), "does not run: no pid file"),
        (node(process="stopped", role=None), "its process is stopped (SIGSTOP)"),
        (node(role=None, silence="connection refused"), "runs, but does not answer: connection refused"),
        (node(process="unknown", host_error="SSH failed"), "host: SSH failed"),
        (node(process="unknown", host_error="SSH failed", role=None), "host: SSH failed, and the node does not answer"),
        (node(initialized=False), "belongs to no cluster yet"),
    ],
)
def test_what_is_wrong_with_a_node_is_said(report, said):
    assert trouble(report) == said
    assert problems([LEADER, report])


@pytest.mark.parametrize(
    ("reports", "said"),
    [
        ([node("n1", leader=None), node("n2", leader=None)], "no node leads"),
        ([LEADER, node("n2", role="leader", term=4)], "several nodes say that they lead: n1 in term 3, n2 in term 4"),
        ([LEADER, node("n2", term=2)], "n2: follows n1 in term 2, but n1 leads in 3"),
        ([LEADER, node("n2", leader=None)], "n2: follows nobody in term 3, but n1 leads in 3"),
    ],
)
def test_nodes_that_do_not_agree_are_no_well_cluster(reports, said):
    assert disagreements(reports) == [said]


def test_the_summary_counts_what_the_table_explains():
    down = node("n2", process="gone", process_detail="no pid file", role=None)
    assert summary("x", [LEADER, down]) == "The cluster x is not well: 1 of 2 nodes is not well."


def test_the_table_shows_a_dash_for_whatever_is_not_known():
    silent = NodeReport("n2", "10.0.0.2:8400", "it cannot be reached")
    head, well, unknown = rows([LEADER, silent])
    assert dict(zip(head, well, strict=True)) == {
        "node": "n1",
        "address": "10.0.0.1:8400",
        "role": "leader",
        "term": "3",
        "applied": "12",
        "version": "0.1.0 01234567",
        "disk free": "5.0 GiB",
        "clock": "within 4 ms",
        "": "",
    }
    assert unknown[2:8] == ("-",) * 6
    assert unknown[-1].startswith("host: it cannot be reached")


@pytest.mark.parametrize(
    ("offset", "error", "said"),
    [(0.003, 0.004, "within 4 ms"), (0.5, 0.01, "+500 ms"), (-3.21, 0.01, "-3.2 s"), (7200, 0.1, "+7200 s")],
)
def test_of_a_clock_no_more_is_said_than_is_known(offset, error, said):
    assert clock(offset, error) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (512 << 20, "512 MiB"), (3 << 40, "3.0 TiB")]
)
def test_sizes_are_for_people(count, said):
    assert size(count) == said
