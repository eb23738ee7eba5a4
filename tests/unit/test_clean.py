"""`raftbed clean` takes away what nobody misses; hosts that somebody keeps elsewhere, only when it is told to."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raftbed import listing
from raftbed.hosts import docker_runs, labs
from raftbed.hosts.tunnel_directory import TunnelDirectory


@pytest.fixture
def removed(tmp_path, monkeypatch) -> list[Path]:
    """A lab that a run of this store kept, and a cluster; the directories of those that were removed."""
    gone: list[Path] = []
    kept = [
        labs.LabInfo(directory, "kept", ("n1",), 1, 2, 0.0)
        for directory in (tmp_path / "store/smoke-test/1/lab", tmp_path / "store-of-clusters/default")
    ]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
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


def test_tunnels_go_when_their_process_was_killed_and_not_before(tmp_path, removed, monkeypatch):
    """A tunnel's socket lies in a private directory of the temporary one; a process that is killed leaves it there."""
    script = (
        "import sys; from raftbed.hosts.tunnel_directory import TunnelDirectory; made = TunnelDirectory();"
        "(made.path / '8400').touch(); print(made.path, flush=True); sys.stdin.read()"
    )
    controller = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"TMPDIR": str(tmp_path)},
        text=True,
    )
    theirs = Path(controller.stdout.readline().strip())
    mine = TunnelDirectory()
    said: list[str] = []
    listing.clean(tmp_path / "store", said.append)
    assert (theirs / "8400").exists()
    controller.kill()
    controller.communicate()
    done = listing.clean(tmp_path / "store", said.append)
    assert not theirs.exists()
    assert mine.path.exists()
    assert f"tunnels of a dead process in {theirs}" in done.removed
    mine.close()
    assert not mine.path.exists()


def test_what_only_looks_like_a_tunnel_is_left_alone(tmp_path, removed):
    somebodys = tmp_path / "somebodys"
    somebodys.mkdir(mode=0o700)
    (tmp_path / "raftbed-tunnel-link").symlink_to(somebodys)
    (tmp_path / "raftbed-tunnel-file").touch()
    (tmp_path / "raftbed-tunnel-open").mkdir(mode=0o755)  # not as raftbed makes them
    listing.clean(tmp_path / "store", lambda text: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "raftbed-tunnel-file", "raftbed-tunnel-link", "raftbed-tunnel-open", "somebodys",
    ]  # fmt: skip
