"""The proxy copies both ways, and knows half an end from a whole one."""

from __future__ import annotations

import os
import socket
import threading

import pytest

from raftbed.errors import HostError
from raftbed.hosts.inventory import InventoryEntry
from raftbed.operating.proxy import connect, join


def test_what_goes_in_comes_out_and_the_end_of_the_input_is_not_the_end_of_the_answer():
    near, far = socket.socketpair()
    source, feed = os.pipe()
    drain, sink = os.pipe()
    joining = threading.Thread(target=join, args=(near, source, sink))
    joining.start()
    content = os.urandom(300_000)
    answered = []

    def answer() -> None:
        while chunk := far.recv(1 << 16):  # to the end of the input
            answered.append(chunk)
        far.sendall(b"".join(answered)[::-1])
        far.close()

    def read() -> None:
        with open(drain, "rb") as stream:
            answered.append(stream.read(len(content)))

    threads = [threading.Thread(target=work) for work in (answer, read)]
    for thread in threads:
        thread.start()
    with open(feed, "wb") as stream:
        stream.write(content)
    for thread in (*threads, joining):
        thread.join(20)
        assert not thread.is_alive()
    os.close(sink)
    os.close(source)
    assert answered[-1] == content[::-1]


def test_a_port_that_is_closed_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(HostError, match=f"n1: 127.0.0.1:{port} cannot be reached: Connection refused"):
        connect(InventoryEntry(name="n1", address="127.0.0.1", port=port))


def test_a_host_behind_a_jump_host_is_for_ssh_to_reach():
    with pytest.raises(HostError, match="raftbed cluster ssh-config"):
        connect(InventoryEntry(name="n1", address="10.1.1.1", jump="gate"))
