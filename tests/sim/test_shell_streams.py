"""Connections in virtual time: what TCP does with a bad link, and what it leaves to the program."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from shell_support import World

ADDRESS = ("b", 8400)


class Keeper(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.events: list[str] = []
        self.error: Any = "open"
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.error = error
        self.events.append("lost")


def listens(world: World) -> list[Keeper]:
    kept: list[Keeper] = []

    def accept() -> Keeper:
        kept.append(Keeper())
        return kept[-1]

    world.b.run_until_complete(world.b.create_server(accept, *ADDRESS))
    return kept


def connected(world: World) -> tuple[Keeper, Keeper]:
    """The protocols of a connection from a to b."""
    kept = listens(world)
    _, near = world.a.run_until_complete(world.a.create_connection(Keeper, *ADDRESS))
    world.pass_time(0.1)
    return near, kept[-1]


def test_bytes_come_whole_and_in_order_in_pieces_of_any_size():
    sizes = set()
    for seed in range(30):
        world = World(seed)
        near, far = connected(world)
        sent = bytes(range(256)) * 40
        for start in range(0, len(sent), 1000):
            near.transport.write(sent[start : start + 1000])
        world.pass_time(1)
        assert b"".join(far.parts) == sent
        sizes |= {len(part) for part in far.parts}
    assert 1 in sizes
    assert max(sizes) > 1000


def test_a_cut_holds_bytes_back_until_it_is_over():
    world = World()
    near, far = connected(world)
    world.cut("a", "b")
    near.transport.write(b"held ")
    near.transport.write(b"back")
    far.transport.write(b"the other way is open")
    world.pass_time(3)
    assert far.parts == []
    assert b"".join(near.parts) == b"the other way is open"
    world.heal("a", "b")
    world.pass_time(2)
    assert b"".join(far.parts) == b"held back"


def test_a_lossy_link_makes_bytes_late_and_loses_none():
    world = World()
    near, far = connected(world)
    link = world.network.way("a", "b")
    link.loss["test"] = 0.5
    link.changed()
    for number in range(20):
        near.transport.write(bytes([number]))
    world.pass_time(60)
    assert b"".join(far.parts) == bytes(range(20))
    assert link.met["test"] > 0


def test_nobody_listens():
    world = World()
    with pytest.raises(ConnectionRefusedError):
        world.a.run_until_complete(world.a.create_connection(Keeper, *ADDRESS))


@pytest.mark.parametrize("way", [("a", "b"), ("b", "a")])
def test_a_connection_over_a_cut_is_made_when_the_cut_is_over(way):
    world = World()
    listens(world)
    world.cut(*way)
    attempt = world.a.create_task(world.a.create_connection(Keeper, *ADDRESS))
    world.pass_time(5)
    assert not attempt.done()
    world.heal(*way)
    world.pass_time(10)
    assert attempt.done()


def test_who_gives_up_an_attempt_leaves_nothing_open():
    world = World()
    kept = listens(world)
    attempt = world.a.create_task(world.a.create_connection(Keeper, *ADDRESS))
    world.timeline.run(lambda: bool(kept), limit=10**9)
    attempt.cancel()
    world.pass_time(1)
    assert kept[0].events == ["made", "lost"]
    assert world.network.connections("a") == world.network.connections("b") == []


def test_a_closed_connection_brings_what_was_written_and_ends():
    world = World()
    near, far = connected(world)
    near.transport.write(b"last words")
    near.transport.close()
    world.pass_time(1)
    assert b"".join(far.parts) == b"last words"
    assert (near.error, far.error) == (None, None)


def test_the_connections_of_a_killed_process_end():
    world = World()
    near, far = connected(world)
    world.b.retire()
    world.network.process_gone("b")
    world.pass_time(1)
    assert near.events == ["made", "lost"]
    assert far.events == ["made"]


def test_a_machine_without_power_says_nothing_and_resets_when_it_is_back():
    world = World()
    near, _ = connected(world)
    world.b.retire()
    world.network.power("b", False)
    near.transport.write(b"anybody there?")
    world.pass_time(2)
    assert near.events == ["made"]
    world.network.power("b", True)
    world.pass_time(5)
    assert isinstance(near.error, ConnectionResetError)


def test_a_writer_waits_for_a_reader_that_does_not_read():
    world = World()
    near, far = connected(world)
    far.transport.pause_reading()
    near.transport.write(bytes(1 << 20))
    world.pass_time(1)
    assert near.events == ["made", "pause"]
    assert far.parts == []
    far.transport.resume_reading()
    world.pass_time(30)
    assert near.events == ["made", "pause", "resume"]
    assert sum(map(len, far.parts)) == 1 << 20


@pytest.mark.parametrize("when", ["before it is accepted", "while it is accepted"])
def test_a_connection_that_is_reset_before_its_process_hears_of_it_is_made_first(when):
    world = World()
    kept = listens(world)
    world.a.create_task(world.a.create_connection(Keeper, *ADDRESS))
    early = when == "before it is accepted"
    world.timeline.run(lambda: bool(world.network.connections("b") if early else kept), limit=10**9)
    assert not any(keeper.events for keeper in kept)
    for endpoint in world.network.connections("b"):
        endpoint.reset()
    world.pass_time(1)
    assert kept[0].events == ["made", "lost"]
    assert not world.complaints


def test_a_protocol_that_breaks_loses_its_connection_and_is_told_of():
    world = World()
    near, far = connected(world)
    far.data_received = lambda data: 1 / 0  # type: ignore[method-assign,assignment]
    near.transport.write(b"x")
    world.pass_time(1)
    assert [str(context["exception"]) for context in world.complaints] == ["division by zero"]
    assert near.error is None
