"""What nodes say over their connections is read along frame by frame, wherever the stream is cut."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from shell_support import whole
from sim_support import step

from raftbed.nodes.raft import (
    AppendEntriesRequest,
    AppendEntriesResponse,
    InstallSnapshotRequest,
    MembershipConfig,
    TimeoutNowRequest,
    VoteRequest,
    VoteResponse,
)
from raftbed.nodes.raft.messages import Blank, Entry, SnapshotMeta
from raftbed.nodes.wire import NUMBERS, OK, REFUSED, encode, frame
from raftbed.sim.message_log import MessageLog
from raftbed.sim.shell.simulation import ShellSimulation
from raftbed.sim.shell.wiretap import Wiretap
from raftbed.sim.timeline import Timeline

ASKS = b"GET /raft/stream HTTP/1.1\r\nHost: n2:8400\r\nUpgrade: raftbed-raft\r\n\r\n"
AGREES = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: raftbed-raft\r\n\r\n"
ENTRIES = (Entry(5, 3, Blank()), Entry(6, 3, Blank()))
SNAPSHOT = SnapshotMeta(9, 2, "0" * 16, MembershipConfig(("n1", "n2")), size=20)


class Wire:
    """A connection of n1 to n2 on which the clock shows how many bytes were written and read."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.log = MessageLog()
        self.tap = Wiretap(self.log, self.timeline, "n1", "n2")

    def carry(self, tap: Any, data: bytes, piece: int) -> None:
        """Write so many bytes at a time, each read at once."""
        for start in range(0, len(data), piece):
            part = data[start : start + piece]
            tap.written(part)
            self.timeline.now += 1
            tap.read(len(part))

    def said(self) -> list[str]:
        return [f"{message['from']} to {message['to']}: {message['text']}" for message in self.log.messages]


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
def test_messages_are_told_wherever_the_stream_is_cut(piece):
    wire = Wire()
    request = AppendEntriesRequest(3, "n1", 4, 2, ENTRIES, 4)
    asked = ASKS + frame(1, NUMBERS["append_entries"], encode(request))
    asked += frame(2, NUMBERS["pre_vote"], encode(VoteRequest(4, "n1", 6, 3)))
    wire.carry(wire.tap.requests, asked, piece)
    told = (
        AGREES + frame(2, OK, encode(VoteResponse(3, True))) + frame(1, OK, encode(AppendEntriesResponse(3, True, 6)))
    )
    wire.carry(wire.tap.answers, told, piece)
    assert wire.said() == [
        "n1 to n2: entries 5 to 6 after 4, term 3, committed 4",
        "n1 to n2: asks for the promise of a vote in term 4, log ends at 6 of 3",
        "n2 to n1: grants, term 3",
        "n2 to n1: holds up to 6, term 3",
    ]
    assert all(message["arrived"] for message in wire.log.messages)


def test_a_message_has_arrived_when_its_last_byte_is_read():
    wire = Wire()
    message = frame(1, NUMBERS["timeout_now"], encode(TimeoutNowRequest(3, "n1")))
    wire.tap.requests.written(ASKS + message)
    wire.tap.requests.read(len(ASKS) + len(message) - 1)
    assert wire.said() == ["n1 to n2: stand for election at once, term 3"]
    assert wire.log.messages[0]["arrived"] is None
    wire.timeline.now = 77
    wire.tap.requests.read(1)
    assert wire.log.messages[0]["arrived"] == 77


def test_a_refusal_and_what_is_no_message_are_told_as_such():
    wire = Wire()
    piece = InstallSnapshotRequest(3, "n1", SNAPSHOT, 0, b"x" * 20, True)
    asked = ASKS + frame(1, NUMBERS["install_snapshot"], encode(piece)) + frame(2, NUMBERS["vote"], b"\xc1")
    wire.carry(wire.tap.requests, asked, 1000)
    wire.carry(wire.tap.answers, AGREES + frame(1, REFUSED, b"it shuts down"), 1000)
    assert wire.said()[0] == "n1 to n2: snapshot up to 9, from byte 0, term 3"
    assert "Not a Raft message" in wire.said()[1]
    assert wire.said()[2] == "n2 to n1: install_snapshot: refuses: it shuts down"


def test_a_connection_that_was_refused_carries_no_messages():
    wire = Wire()
    wire.carry(wire.tap.requests, ASKS, 1000)
    wire.carry(wire.tap.answers, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\n{}", 1000)
    assert wire.said() == []


def test_a_run_goes_the_same_way_with_its_messages_recorded():
    schedule = [step("reset", "all", 0.4, 1.2, nodes=3), step("kill", "leader", 0.8, 1.5, nodes=3, number=2)]
    plan = whole(nodes=3, time_limit=2.0, schedule=schedule)
    listened, alone = ShellSimulation(plan, messages=True).run(), ShellSimulation(plan).run()
    assert listened.trace_hash() == alone.trace_hash()
    assert not alone.messages
    said = listened.messages
    assert {message["method"] for message in said} >= {"append_entries", "vote", "pre_vote"}
    lost = sum(message["arrived"] is None for message in said)
    assert 0 < lost < len(said) / 10, "a kill and resets lose a few"
    assert all(message["time"] < message["arrived"] for message in said if message["arrived"] is not None)
    assert all(one["time"] <= other["time"] for one, other in pairwise(said))
