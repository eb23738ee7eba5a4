"""Questions to a lab (lab_client.py, local.py) that is slow, busy or gone, or whose asker was cancelled."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.hosts.lab_client import LabConnection
from raftbed.hosts.local import LocalHost


class SlowLab:
    """The other end of a control connection. It answers when it is told to, in a thread, as a lab would."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.asked: list[dict[str, Any]] = []

    def take(self) -> dict[str, Any]:
        """The next request."""
        self.asked.append(json.loads(self.channel.recv(1 << 16)))
        return self.asked[-1]

    def answer(self, request: dict[str, Any], **more: Any) -> None:
        self.channel.send(json.dumps({"id": request["id"], **more}).encode())


@pytest.fixture
def lab() -> Iterator[tuple[SlowLab, LabConnection]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield SlowLab(theirs), LabConnection(ours)


def host(connection: LabConnection, directory: Path) -> LocalHost:
    """A host at an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    return LocalHost(InventoryEntry("n1", "127.0.0.1", port=port), connection, directory / "log")


async def test_an_answer_that_nobody_waits_for_any_more_harms_no_later_request(lab):
    slow, connection = lab
    cancelled = asyncio.ensure_future(connection.request("up"))
    first = await asyncio.to_thread(slow.take)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    slow.answer(first, up=["n1"])  # too late
    asking = asyncio.ensure_future(connection.request("crash", hosts=["n1"]))
    second = await asyncio.to_thread(slow.take)
    while select.select([connection._channel], [], [], 0)[0]:
        await asyncio.sleep(0)  # until the late answer was read, and thrown away
    await asyncio.sleep(0)
    slow.answer(second, done=True)
    assert (await asking)[0]["done"] is True
    for number in range(3):
        asking = asyncio.ensure_future(connection.request("boot"))
        slow.answer(await asyncio.to_thread(slow.take), number=number)
        assert (await asking)[0]["number"] == number


async def test_a_busy_lab_keeps_nobody_from_trying_ssh(lab, tmp_path, monkeypatch):
    monkeypatch.setattr("raftbed.hosts.local._LAB_PATIENCE", 0.05)
    _, connection = lab  # it never answers
    with pytest.raises(HostError, match="n1: nothing listens at 127"):
        await host(connection, tmp_path).connect(timeout=5.0)


async def test_a_lab_that_is_gone_is_named(lab, tmp_path):
    slow, connection = lab
    slow.channel.close()
    with pytest.raises(HostError, match="n1: cannot be reached: the lab of the local hosts is gone"):
        await host(connection, tmp_path).connect()


async def test_a_host_whose_lab_says_so_is_down_at_once_and_for_good(lab, tmp_path):
    slow, connection = lab
    lost = host(connection, tmp_path)
    connecting = asyncio.ensure_future(lost.connect())
    slow.answer(await asyncio.to_thread(slow.take), up=["n2"])
    for attempt in (connecting, lost.connect()):
        with pytest.raises(HostError, match="n1: is down: its first process ended by itself"):
            await attempt
    assert len(slow.asked) == 1


async def test_a_host_that_does_not_boot_has_not_ended_by_itself(lab, tmp_path):
    slow, connection = lab
    reset = host(connection, tmp_path)
    booting = asyncio.ensure_future(reset.reboot())
    slow.answer(await asyncio.to_thread(slow.take), error="no more processes")
    with pytest.raises(HostError, match="no more processes"):
        await booting
    with pytest.raises(HostError, match="n1: is down: it was crashed and not rebooted"):
        await reset.connect()
