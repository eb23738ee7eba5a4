"""Restarting a cluster goes on serving: one node after the other, and no further than one that does not come back."""

from __future__ import annotations

import pytest

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.operating import lifecycle
from raftbed.operating.clusters import ClusterRecord, NodeRecord
from raftbed.operating.fleet import Fleet

NODES = ["n1", "n2", "n3"]


@pytest.fixture
def record() -> ClusterRecord:
    nodes = {node: NodeRecord(f"{node}:8400", ["true"], {}) for node in NODES}
    return ClusterRecord(name="c", hosts="local", created="", identity="c", bundle="", bug=None, nodes=nodes)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(InventoryEntry(name=node, address="192.0.2.1") for node in NODES)


@pytest.fixture
def story(monkeypatch) -> list[str]:
    """What was done to nodes, in order; n2 does not start again."""
    done: list[str] = []

    def stop(remote):
        done.append(f"stop {remote.name}")
        return "stopped"

    def start(remote, node):
        done.append(f"start {remote.name}")
        if remote.name == "n2":
            raise HostError("it ended by itself at its start.", host="n2")
        return "started (process 1)"

    monkeypatch.setattr(lifecycle, "stop_node", stop)
    monkeypatch.setattr(lifecycle, "start_node", start)
    return done


def test_a_node_that_does_not_come_back_is_the_last_that_is_stopped(fleet, record, story):
    results = lifecycle.restart(fleet, record)
    assert story == ["stop n1", "start n1", "stop n2", "start n2"]
    assert list(results) == NODES
    assert results["n1"] == "restarted (process 1)"
    assert "ended by itself" in str(results["n2"])
    assert "left alone" in str(results["n3"])


def test_all_at_once_leaves_none_out(fleet, record, story):
    results = lifecycle.restart(fleet, record, at_once=True)
    assert sorted(story) == sorted(f"{what} {node}" for node in NODES for what in ("stop", "start"))
    assert [isinstance(result, HostError) for result in results.values()] == [False, True, False]


def test_a_node_that_nothing_was_deployed_to_says_so(fleet, record, story):
    bare = ClusterRecord(name="c", hosts="local", created="", identity="c", bundle="", bug=None, nodes={})
    assert "raftbed cluster deploy" in str(lifecycle.start(fleet, bare)["n1"])


@pytest.mark.parametrize("home", ["/", "relative", "/var", "/var/.."])
def test_a_home_that_others_use_is_never_cleaned(home):
    fleet = Fleet([InventoryEntry(name="n1", address="192.0.2.1", home=home)])
    assert "is no directory that can be cleaned" in str(lifecycle.clean(fleet)["n1"])
