"""`raftbed clean` takes away what nobody misses; hosts that somebody keeps elsewhere, only when it is told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftbed import listing
from raftbed.hosts import docker_runs, labs


@pytest.fixture
def removed(tmp_path, monkeypatch) -> list[Path]:
    """A lab that a run of this store kept, and a cluster; the directories of those that were removed."""
    gone: list[Path] = []
    kept = [
        labs.LabInfo(directory, "kept", ("n1",), 1, 2, 0.0)
        for directory in (tmp_path / "store/smoke-test/1/lab", tmp_path / "store-of-clusters/default")
    ]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(docker_runs, "clean", list)
    monkeypatch.setattr(labs, "sweep", lambda store: [])
    monkeypatch.setattr(labs, "list_labs", lambda store: kept)
    monkeypatch.setattr(labs, "remove_lab", lambda lab: gone.append(lab.directory))
    return gone


def test_what_runs_of_other_stores_and_clusters_keep_is_named_and_left_alone(tmp_path, removed):
    said: list[str] = []
    done = listing.clean(tmp_path / "store", said.append)
    cluster = f"kept hosts n1 in {tmp_path}/store-of-clusters/default"
    assert removed == [tmp_path / "store/smoke-test/1/lab"]
    assert done.left == [cluster]
    assert said == [f"removed {done.removed[0]}", f"left alone: {cluster}"]


def test_all_of_it_goes_when_that_is_asked_for(tmp_path, removed):
    done = listing.clean(tmp_path / "store", lambda text: None, everything=True)
    assert len(removed) == len(done.removed) == 2
    assert done.left == []


def test_the_remedy_for_a_lab_that_does_not_answer_takes_away_no_other():
    kept = labs.LabInfo(Path("/somewhere/my lab"), "kept", ("n1",), 1, 2, 0.0)
    assert labs.removal(kept) == "raftbed cluster down --cluster '/somewhere/my lab'"
