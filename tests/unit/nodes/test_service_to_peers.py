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
    Entry,
    Normal,
    RaftNetworkError,
    VoteRequest,
    VoteResponse,
)
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
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
async def test_bad_raft_messages_are_refused(node, name):
    before = await node.state()
    status, body = await node.peer(*BAD_MESSAGES[name])
    assert status == 400
    assert msgspec.json.decode(body)["message"].startswith("Not a Raft message: ")
    assert await node.state() == before


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
