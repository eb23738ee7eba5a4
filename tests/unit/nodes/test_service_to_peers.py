"""What a node answers to peers that speak plain HTTP to it, and which messages it refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests_served_node import OURS

from raftbed.nodes.peers import PeerNetwork
from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    ConfigChange,
    Entry,
    InstallSnapshotRequest,
    MembershipConfig,
    Normal,
    RaftNetworkError,
    SnapshotMeta,
    TimeoutNowRequest,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.messages import MOST
from raftbed.nodes.wire import CLUSTER_HEADER, TARGET_HEADER


async def test_peers_are_answered(pristine):
    status, body = await pristine.peer("pre_vote", VoteRequest(1, "n2", 0, 0))
    assert (status, msgspec.msgpack.decode(body, type=VoteResponse)) == (200, VoteResponse(0, vote_granted=True))
    status, body = await pristine.peer("vote", VoteRequest(1, "n2", 0, 0))
    assert (status, msgspec.msgpack.decode(body, type=VoteResponse)) == (200, VoteResponse(1, vote_granted=True))
    heartbeat = AppendEntriesRequest(1, "n2", 0, 0, (), 0)
    status, body = await pristine.peer("append_entries", heartbeat)
    answer = msgspec.msgpack.decode(body, type=AppendEntriesResponse)
    assert (status, answer) == (200, AppendEntriesResponse(1, success=True, verified_index=0))


def entry(index: int, term: int) -> Entry:
    return Entry(index, term, Normal({"op": "put", "key": "k", "value": "bad"}))


def config(*members: str, after: tuple[str, ...] | None = None) -> AppendEntriesRequest:
    return AppendEntriesRequest(9, "n2", 2, 1, (Entry(3, 9, ConfigChange(MembershipConfig(members, after))),), 0)


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def command(value: Any) -> AppendEntriesRequest:
    return AppendEntriesRequest(9, "n2", 2, 1, (entry(3, 9), Entry(4, 9, Normal(value))), 0)


TOO_MUCH = MOST + 1
DEEP_KEY = msgspec.msgpack.encode(command("KEY")).replace(b"\xa3KEY", b"\x81" + b"\x91" * 200 + b"\x90\x01")
META = SnapshotMeta(100, 3, "0" * 16, MembershipConfig(("n1",)), size=10, checksum=1)

NO_TERM = msgspec.structs.replace(META, term=0)


def piece(
    term: int = 9, offset: int = 0, data: bytes = b"x", done: bool = False, **meta: Any
) -> InstallSnapshotRequest:
    return InstallSnapshotRequest(term, "n2", msgspec.structs.replace(META, **meta), offset, data, done)


BAD_MESSAGES: dict[str, tuple[str, Any]] = {
    "garbage": ("append_entries", b"\xc1\xc1"),
    "nothing": ("append_entries", b""),
    "JSON": ("vote", b'{"term": 9}'),
    "another message": ("append_entries", VoteRequest(9, "n2", 9, 9)),
    "a term in words": ("vote", ["nine", "n2", 9, 9]),
    "term zero": ("append_entries", AppendEntriesRequest(0, "n2", 0, 0, (), 0)),
    "a negative term": ("vote", VoteRequest(-1, "n2", 9, 9)),
    "a term that cannot be counted on": ("vote", VoteRequest((1 << 64) - 1, "n2", 9, 9)),
    "a log newer than its candidate": ("vote", VoteRequest(9, "n2", 9, 10)),
    "a log with a length and no term": ("pre_vote", VoteRequest(9, "n2", 9, 0)),
    "entries with a gap": ("append_entries", AppendEntriesRequest(9, "n2", 2, 1, (entry(3, 9), entry(5, 9)), 0)),
    "entries that do not follow": ("append_entries", AppendEntriesRequest(9, "n2", 2, 1, (entry(2, 9),), 0)),
    "terms that go back": ("append_entries", AppendEntriesRequest(9, "n2", 2, 1, (entry(3, 8), entry(4, 7)), 0)),
    "an entry newer than its leader": ("append_entries", AppendEntriesRequest(9, "n2", 2, 1, (entry(3, 10),), 0)),
    "an entry of term zero": ("append_entries", AppendEntriesRequest(9, "n2", 0, 0, (entry(1, 0),), 0)),
    "a negative index": ("append_entries", AppendEntriesRequest(9, "n2", -1, 1, (), 0)),
    "a negative commit": ("append_entries", AppendEntriesRequest(9, "n2", 2, 1, (), -1)),
    "a leader's term that cannot be counted on": ("append_entries", AppendEntriesRequest(TOO_MUCH, "n2", 0, 0, (), 0)),
    "an index that cannot be counted on": ("append_entries", AppendEntriesRequest(9, "n2", TOO_MUCH, 1, (), 0)),
    "a commit that cannot be counted on": ("append_entries", AppendEntriesRequest(9, "n2", 2, 1, (), TOO_MUCH)),
    "no voters": ("append_entries", config()),
    "no voters to come": ("append_entries", config("n1", after=())),
    "a voter twice": ("append_entries", config("n1", "n2", "n2")),
    "a voter to come twice": ("append_entries", config("n1", after=("n2", "n2", "n3"))),
    "a command that is too deep to be written": ("append_entries", command({"op": "put", "value": nested(200)})),
    "a command with a key that is too deep": ("append_entries", DEEP_KEY),
    "a list that is too deep": ("append_entries", command(nested(201))),
    "a log that cannot be": ("vote", VoteRequest(9, "n2", TOO_MUCH, 9)),
    "a snapshot's leader of a term that cannot be counted on": ("install_snapshot", piece(TOO_MUCH)),
    "a snapshot's leader of the greatest term that there is": ("install_snapshot", piece((1 << 64) - 1, 5)),
    "a snapshot's leader of a negative term": ("install_snapshot", piece(-1)),
    "a snapshot newer than its leader": ("install_snapshot", piece(term=2)),
    "a snapshot of term 0": ("install_snapshot", InstallSnapshotRequest(9, "n2", NO_TERM, 0, b"x")),
    "a snapshot of nothing": ("install_snapshot", piece(index=0)),
    "a snapshot of an index that cannot be counted on": ("install_snapshot", piece(index=TOO_MUCH)),
    "a snapshot of a negative index": ("install_snapshot", piece(index=-1)),
    "a hash that is none": ("install_snapshot", piece(hash="no hash at all !")),
    "half a hash": ("install_snapshot", piece(hash="00000000")),
    "a snapshot without voters": ("install_snapshot", piece(membership=MembershipConfig(()))),
    "a snapshot with a voter twice": ("install_snapshot", piece(membership=MembershipConfig(("n1", "n1")))),
    "a negative checksum": ("install_snapshot", piece(checksum=-1)),
    "a checksum that no file could have in its name": ("install_snapshot", piece(checksum=1 << 32)),
    "a size that cannot be": ("install_snapshot", piece(size=TOO_MUCH)),
    "a negative size": ("install_snapshot", piece(data=b"", size=-1)),
    "a negative offset": ("install_snapshot", piece(offset=-1)),
    "a piece beyond the end": ("install_snapshot", piece(offset=10)),
    "a last piece that is not": ("install_snapshot", piece(done=True)),
    "a last piece that does not say so": ("install_snapshot", piece(offset=9)),
    "a term to stand in that cannot be counted on": ("timeout_now", TimeoutNowRequest(TOO_MUCH, "n2")),
    "a term to stand in that is 0": ("timeout_now", TimeoutNowRequest(0, "n2")),
    "a negative term to stand in": ("timeout_now", TimeoutNowRequest(-1, "n2")),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
async def test_bad_raft_messages_are_refused(node, name):
    before = await node.state()
    status, body = await node.peer(*BAD_MESSAGES[name])
    assert status == 400
    assert msgspec.json.decode(body)["message"].startswith("Not a Raft message: ")
    assert await node.state() == before


async def test_what_is_just_within_the_bounds_is_taken(follower):
    """A command of 200 levels, the greatest numbers, a snapshot's first piece: no bound is too narrow."""
    deep = Entry(2, 3, Normal({"op": "put", "key": "k", "value": nested(199)}))
    status, body = await follower.peer("append_entries", AppendEntriesRequest(3, "n2", 1, 3, (deep,), 2))
    answer = msgspec.msgpack.decode(body, type=AppendEntriesResponse)
    assert (status, answer) == (200, AppendEntriesResponse(3, success=True, verified_index=2))
    assert follower.machine.read("k") == nested(199)
    greatest = msgspec.structs.replace(META, index=MOST, term=MOST, size=MOST, checksum=(1 << 32) - 1)
    assert (await follower.peer("install_snapshot", InstallSnapshotRequest(MOST, "n2", greatest, 0, b"x")))[0] == 200
    assert (await follower.state())[1] == MOST
    assert (await follower.peer("append_entries", AppendEntriesRequest(MOST, "n2", MOST, MOST, (), MOST)))[0] == 200
    assert (await follower.peer("vote", VoteRequest(MOST, "n2", MOST, MOST)))[0] == 200
    assert (await follower.peer("timeout_now", TimeoutNowRequest(MOST, "n2")))[0] == 200


@pytest.mark.parametrize("headers", [{CLUSTER_HEADER: "there"}, {CLUSTER_HEADER: "%E2%82%AC"}, {}])
@pytest.mark.parametrize("method", ["append_entries", "vote", "pre_vote"])
async def test_a_peer_of_another_cluster_is_refused(pristine, method, headers):
    before = await pristine.state()
    status, body = await pristine.peer(method, AppendEntriesRequest(9, "n2", 0, 0, (), 0), headers)
    answer = msgspec.json.decode(body)
    assert (status, answer["error"]) == (403, "wrong-cluster")
    assert answer["message"].startswith("This node belongs to cluster 'here', not to ")
    assert await pristine.state() == before


async def test_a_message_for_another_node_is_refused(pristine):
    """With two addresses mixed up, one node would answer for two, and be counted twice in a majority."""
    before = await pristine.state()
    status, body = await pristine.peer("vote", VoteRequest(9, "n3", 9, 9), {**OURS, TARGET_HEADER: "n2"})
    assert (status, msgspec.json.decode(body)["error"]) == (403, "wrong-node")
    assert await pristine.state() == before


async def test_a_huge_message_is_refused(pristine, monkeypatch):
    monkeypatch.setattr("raftbed.nodes.service.MAX_PEER_BODY", 1000)
    before = await pristine.state()
    status, body = await pristine.peer("append_entries", b"x" * 1001)
    assert (status, msgspec.json.decode(body)["error"]) == (413, "too-large")
    assert await pristine.state() == before


async def test_the_network_of_a_node_speaks_to_the_server_of_another(pristine):
    addresses = {"n1": f"127.0.0.1:{pristine.port}", "n2": f"127.0.0.1:{pristine.port}"}
    for cluster, target, reason in [("here", "n2", "wrong-node"), ("ümläut", "n1", "wrong-cluster")]:
        network = PeerNetwork(cluster, addresses, timeout=5.0)
        with pytest.raises(RaftNetworkError, match=reason):
            await network.vote(target, VoteRequest(1, "n3", 0, 0))
        await network.close()
    network = PeerNetwork("here", addresses, timeout=5.0)
    assert await network.pre_vote("n1", VoteRequest(1, "n2", 0, 0)) == VoteResponse(0, vote_granted=True)
    with pytest.raises(RaftNetworkError, match="no address is known of n9"):
        await network.vote("n9", VoteRequest(1, "n2", 0, 0))
    await network.close()
