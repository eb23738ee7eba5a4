"""The simulated network: what a link's troubles do to messages, and that each trouble ends with its owner."""

from __future__ import annotations

import pytest

from raftbed.sim.network import Network
from raftbed.sim.timeline import Timeline


class Wire:
    """A network of three, and what arrived from n1 at n2."""

    def __init__(self):
        self.timeline = Timeline()
        self.network = Network(self.timeline, ["n1", "n2", "n3"], seed=1)
        self.link = self.network.link("n1", "n2")
        self.arrived = []

    def send(self, count):
        for number in range(count):
            self.network.send("n1", "n2", lambda number=number: self.arrived.append(number))
        self.timeline.run(lambda: False, limit=10**12)
        return self.arrived


@pytest.fixture
def wire():
    return Wire()


def test_without_trouble_everything_arrives_within_some_milliseconds(wire):
    assert sorted(wire.send(500)) == list(range(500))
    assert wire.timeline.now < 50_000_000


def test_messages_overtake_each_other(wire):
    assert wire.send(100) != list(range(100))


def test_a_cut_is_one_way_and_open_again_when_its_last_owner_is_gone(wire):
    wire.link.cut.update({"f01": None, "f02": None})
    wire.link.changed()
    assert wire.send(10) == []
    assert not wire.network.link("n2", "n1").troubled
    del wire.link.cut["f01"]
    wire.link.changed()
    assert wire.send(10) == []
    del wire.link.cut["f02"]
    wire.link.changed()
    assert len(wire.send(10)) == 10
    assert wire.link.met == {"f01": 10, "f02": 20}


def test_a_share_is_lost(wire):
    wire.link.loss["f01"] = 0.3
    wire.link.changed()
    assert 600 < len(wire.send(1000)) < 800


def test_a_share_comes_twice(wire):
    wire.link.duplication["f01"] = 0.3
    wire.link.changed()
    assert 1200 < len(wire.send(1000)) < 1400


def test_delays_add_up(wire):
    wire.link.delay.update({"f01": (10**9, 10**9, 1.0), "f02": (10**9, 10**9, 1.0)})
    wire.link.changed()
    wire.send(1)
    assert wire.timeline.now > 2 * 10**9


def test_a_clogged_link_holds_everything_and_lets_it_go_in_a_burst(wire):
    wire.link.clogged["f01"] = None
    wire.link.changed()
    assert wire.send(50) == []
    del wire.link.clogged["f01"]
    wire.link.changed()
    wire.link.let_go(wire.timeline)
    assert len(wire.send(0)) == 50
