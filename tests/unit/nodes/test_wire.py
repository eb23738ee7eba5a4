"""The frames between nodes: cut anywhere, put together again; nothing that is not a message is taken for one."""

from __future__ import annotations

import pytest

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    Config,
    Entry,
    InstallSnapshotRequest,
    MembershipConfig,
    Normal,
    SnapshotMeta,
    VoteRequest,
)
from raftbed.nodes.raft.config import MOST_BYTES
from raftbed.nodes.wire import MAX_MESSAGE, NUMBERS, Frames, NotARaftMessage, decode_request, encode, frame

MESSAGES = [(1, 0, b"first"), (2, 1, b""), (0xFFFFFFFF, 2, b"x" * 1000)]
STREAM = b"".join(frame(*message) for message in MESSAGES)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 10, 500, len(STREAM)])
def test_frames_survive_any_cut(size: int) -> None:
    frames = Frames()
    found = []
    for start in range(0, len(STREAM), size):
        found += [(number, kind, bytes(message)) for number, kind, message in frames.feed(STREAM[start : start + size])]
    assert found == MESSAGES


@pytest.mark.parametrize("size", [1, 1000, 50_000])
def test_a_frame_that_comes_in_pieces_is_put_together_once(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with each of its pieces: a large one would take time that goes with the square of its size."""
    looked_at = 0

    def counted(data: bytes) -> memoryview:
        nonlocal looked_at
        looked_at += len(data)
        return memoryview(data)

    monkeypatch.setattr("raftbed.nodes.wire.memoryview", counted, raising=False)
    stream, frames, found = frame(7, 3, b"x" * 100_000) + frame(8, 3, b"y"), Frames(), []
    for start in range(0, len(stream), size):
        found += [(number, len(message)) for number, _, message in frames.feed(stream[start : start + size])]
    assert found == [(7, 100_000), (8, 1)]
    assert looked_at < 3 * len(stream)


def test_the_largest_piece_that_a_configuration_allows_is_one_that_a_peer_takes() -> None:
    size = Config("test", snapshot_max_chunk_size=MOST_BYTES).snapshot_max_chunk_size
    meta = SnapshotMeta(1, 1, "0" * 16, MembershipConfig(("n1",)), size=2 * size)
    message = encode(InstallSnapshotRequest(1, "n1", meta, 0, bytes(size)))
    assert [number for number, _, _ in Frames().feed(frame(1, NUMBERS["install_snapshot"], message))] == [1]


@pytest.mark.parametrize("length", [0, 4, MAX_MESSAGE + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_is_refused_before_it_is_waited_for(length: int) -> None:
    with pytest.raises(NotARaftMessage, match=f"{length} bytes"):
        list(Frames().feed(length.to_bytes(4, "little") + bytes(5)))


def test_requests_survive_the_wire() -> None:
    append = AppendEntriesRequest(3, "n1", 1, 2, (Entry(2, 3, Normal({"a": 1})),), 1)
    vote = VoteRequest(4, "n2", 7, 3)
    assert decode_request(NUMBERS["append_entries"], encode(append)) == ("append_entries", append)
    assert decode_request(NUMBERS["pre_vote"], encode(vote)) == ("pre_vote", vote)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (200, b""),
        (NUMBERS["vote"], b""),
        (NUMBERS["vote"], b"\xc1"),
        (NUMBERS["vote"], encode([1, "n1"])),
        (NUMBERS["vote"], encode([1, b"\xff", 1, 1])),
        (NUMBERS["append_entries"], encode(AppendEntriesRequest(1, "n1", 5, 1, (Entry(9, 1, Normal(0)),), 0))),
        (NUMBERS["append_entries"], encode(AppendEntriesRequest(1, "n1", -1, 1, (), 0))),
    ],
)
def test_what_is_no_message_is_refused_with_a_sentence(method: int, message: bytes) -> None:
    with pytest.raises(NotARaftMessage, match=r"\.$"):
        decode_request(method, message)
