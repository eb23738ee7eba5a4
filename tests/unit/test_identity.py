"""A data directory knows whose it is: the node and the cluster that it was first started for, and no other."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

from raftbed.nodes.identity import FILE, Identity, claim, identity_of, write
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.storage import StorageError, open_storage

sys.path.append(str(Path(__file__).parent / "storage"))
from fake_disk import FakeDisk, PowerFailure

N1 = Identity(cluster="orders", id="n1")


def test_the_first_start_settles_it_for_good(tmp_path):
    data = tmp_path / "new" / "n1"
    claim(data, N1)
    claim(data, N1)
    assert identity_of(data) == N1
    assert json.loads((data / FILE).read_text()) == {"schema": "raftbed.data/1", "cluster": "orders", "id": "n1"}
    assert [path.name for path in data.iterdir()] == [FILE]
    assert stat.S_IMODE((data / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Identity(cluster="orders", id="n9"), "node n9 of cluster 'orders'"),
        (Identity(cluster="others", id="n1"), "node n1 of cluster 'others'"),
    ],
)
def test_another_node_or_cluster_is_refused(tmp_path, other, named):
    claim(tmp_path, N1)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(StorageError) as refused:
        claim(tmp_path, other)
    assert str(refused.value) == (
        f"{tmp_path}: is the directory of node n1 of cluster 'orders', not of {named}. "
        f"Give this node a directory of its own, or start it with that id and cluster."
    )
    assert (tmp_path / FILE).read_bytes() == before


def test_data_from_before_there_was_the_file_is_taken_over(tmp_path):
    storage = open_storage(tmp_path, KeyValueStateMachine())
    storage.get_initial_state()
    storage.close()
    (segment,) = tmp_path.glob("*.log")
    before = segment.read_bytes()
    claim(tmp_path, N1)
    assert identity_of(tmp_path) == N1
    assert segment.read_bytes() == before


def test_nothing_is_written_while_another_process_uses_the_directory(tmp_path):
    storage = open_storage(tmp_path, KeyValueStateMachine())
    storage.get_initial_state()
    with pytest.raises(StorageError, match="another process uses this directory"):
        claim(tmp_path, N1)
    storage.close()
    assert identity_of(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not as a node wrote it"),
        (b'{"cluster": "orders"}', "missing required field `id`"),
        (b"\xff", "Remove it if you know whose directory this is"),
        (
            b'{"schema": "raftbed.data/2", "cluster": "orders", "id": "n1"}',
            "is of schema 'raftbed.data/2'; this version",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, content, said):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(StorageError) as refused:
        claim(tmp_path, N1)
    assert str(refused.value).startswith(f"{tmp_path / FILE}: ")
    assert said in str(refused.value)


def test_a_power_failure_leaves_the_whole_file_or_none():
    whole = FakeDisk()
    write(whole, N1)
    assert whole.only_what_was_synced().read(FILE) == whole.read(FILE)
    for room in range(whole.written):
        disk = FakeDisk(power_for=room)
        with pytest.raises(PowerFailure):
            write(disk, N1)
        for left in (disk.all_that_was_written(), disk.only_what_was_synced()):
            assert FILE not in left.names()
            left.power_for = None
            write(left, N1)  # what is left of the attempt is in nobody's way
            assert left.read(FILE) == whole.read(FILE)
