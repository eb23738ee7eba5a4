"""Which clusters there are, and which one the user means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raftbed.errors import UsageError
from raftbed.operating.clusters import (
    Cluster,
    ClusterRecord,
    ForwardRecord,
    NodeRecord,
    find,
    list_clusters,
    new_directory,
    pick,
    read_record,
    write_record,
)


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "runtime").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))


def cluster(name: str, directory: str = "") -> Cluster:
    return Cluster(name, Path(directory or f"/clusters/{name}"), None, None)


def record(name: str = "default") -> ClusterRecord:
    nodes = {"n1": NodeRecord("10.0.0.1:8400", ["python3", "-m", "raftbed.nodes"], {"PYTHONPATH": "/b"})}
    return ClusterRecord(
        name=name, hosts="local", created="2026-11-25T10:00:00+00:00", identity="x", bundle="ab", bug=None, nodes=nodes
    )


def test_the_only_cluster_is_meant_when_none_is_named():
    only = cluster("default")
    assert pick(None, [only]) is only


def test_without_a_cluster_it_is_said_how_to_make_one():
    with pytest.raises(UsageError, match=r"there is no cluster\. Make one: raftbed cluster up"):
        pick(None, [])


def test_of_several_one_must_be_named():
    both = [cluster("red"), cluster("blue")]
    with pytest.raises(UsageError, match=r"there are several clusters: red, blue\. Say which one: --cluster NAME"):
        pick(None, both)
    assert pick("blue", both) is both[1]
    with pytest.raises(UsageError, match=r"there is no cluster 'green'. There is: red, blue\."):
        pick("green", both)


def test_a_cluster_is_also_known_by_its_path_and_by_that_of_the_run_that_kept_it(tmp_path):
    kept = tmp_path / "store/smoke-test/x/lab"
    kept.mkdir(parents=True)
    write_record(kept, record("smoke-test/x"))
    for path in (kept, kept.parent):
        assert find(str(path)).directory == kept
    with pytest.raises(UsageError, match="there is no cluster"):
        find(f"{tmp_path}/store")


def test_a_name_that_two_clusters_have_is_not_enough():
    twins = [cluster("a", "/one/a"), cluster("a", "/two/a")]
    with pytest.raises(UsageError, match="Give the path of one: /one/a, /two/a"):
        pick("a", twins)


def test_a_record_is_private_and_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path, record())
    assert read_record(tmp_path) == record()
    assert (tmp_path / "cluster.json").stat().st_mode & 0o777 == 0o600


def test_a_record_that_cannot_be_read_is_none(tmp_path):
    (tmp_path / "cluster.json").write_text("{")
    assert read_record(tmp_path) is None


def test_a_cluster_on_other_hosts_is_found_by_its_record():
    directory = new_directory("theirs")
    assert list_clusters() == []
    directory.mkdir()
    write_record(directory, record("theirs"))
    assert [found.name for found in list_clusters()] == ["theirs"]
    with pytest.raises(UsageError, match="there is a cluster theirs already"):
        new_directory("theirs")


@pytest.mark.parametrize("name", ["", "a b", "../x", "-x", "a" * 41])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UsageError, match="is no name for a cluster"):
        new_directory(name)


def test_a_forward_whose_process_is_gone_is_none(tmp_path):
    import msgspec

    from raftbed.hosts.labs import start_time

    found = Cluster("a", tmp_path, None, None)
    assert found.forward() is None
    for begun, expected in ((start_time(os.getpid()), {"n1": 8401}), (1, None)):
        (tmp_path / "forward.json").write_bytes(msgspec.json.encode(ForwardRecord(os.getpid(), begun, {"n1": 8401})))
        forward = found.forward()
        assert (forward.ports if forward else None) == expected
