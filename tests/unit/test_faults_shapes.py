"""What each shape of a partition promises, for every size of cluster."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftbed.faults.shapes import KILL_SHAPES, PARTITION_SHAPES, majority

orders = st.integers(2, 11).flatmap(lambda n: st.permutations([f"n{number}" for number in range(1, n + 1)]))


def hears(grudge, node, other):
    return other not in grudge.get(node, frozenset())


def heard_by(grudge, order, node):
    """How many nodes `node` hears, itself included."""
    return sum(hears(grudge, node, other) for other in order)


@pytest.mark.parametrize("shape", PARTITION_SHAPES)
@given(order=orders)
def test_nobody_is_cut_off_from_itself_or_from_strangers(shape, order):
    grudge = PARTITION_SHAPES[shape](order)
    for node, sources in grudge.items():
        assert node in order
        assert node not in sources
        assert sources <= set(order)


@pytest.mark.parametrize("shape", sorted(set(PARTITION_SHAPES) - {"bridge", "majorities-ring"}))
@given(order=orders)
def test_every_shape_cuts_something(shape, order):
    grudge = PARTITION_SHAPES[shape](order)
    assert any(grudge.values())


@given(order=orders)
def test_in_a_ring_everyone_hears_a_majority_and_no_two_the_same(order):
    grudge = PARTITION_SHAPES["majorities-ring"](order)
    heard = [frozenset(other for other in order if hears(grudge, node, other)) for node in order]
    assert all(len(group) == majority(len(order)) for group in heard)
    if len(order) > 2:
        assert len(set(heard)) == len(order)


@given(order=orders.filter(lambda order: len(order) >= 3))
def test_over_a_bridge_one_node_hears_all_and_the_sides_do_not_hear_each_other(order):
    grudge = PARTITION_SHAPES["bridge"](order)
    middle = order[len(order) // 2]
    assert heard_by(grudge, order, middle) == len(order)
    left, right = order[: len(order) // 2], order[len(order) // 2 + 1 :]
    assert not any(hears(grudge, a, b) or hears(grudge, b, a) for a in left for b in right)
    assert all(hears(grudge, node, middle) for node in order)


@given(order=orders)
def test_a_leader_in_the_minority_has_no_quorum(order):
    grudge = PARTITION_SHAPES["leader-minority"](order)
    assert heard_by(grudge, order, order[0]) < majority(len(order))


@given(order=orders.filter(lambda order: len(order) >= 3))
def test_the_leader_keeps_its_quorum_while_followers_fall_behind(order):
    grudge = PARTITION_SHAPES["followers-minority"](order)
    assert majority(len(order)) <= heard_by(grudge, order, order[0]) < len(order)


@given(order=orders)
def test_a_deaf_leader_is_heard_and_a_mute_one_hears(order):
    leader, others = order[0], order[1:]
    deaf, mute = PARTITION_SHAPES["leader-deaf"](order), PARTITION_SHAPES["leader-mute"](order)
    assert all(hears(deaf, other, leader) and not hears(deaf, leader, other) for other in others)
    assert all(hears(mute, leader, other) and not hears(mute, other, leader) for other in others)


@given(order=orders)
def test_one_way_is_one_way(order):
    grudge = PARTITION_SHAPES["one-way"](order)
    for node, sources in grudge.items():
        assert all(hears(grudge, source, node) for source in sources)


@given(order=orders)
def test_kills_hit_as_many_as_they_say(order):
    count = len(order)
    assert len(KILL_SHAPES["one"](order)) == len(KILL_SHAPES["leader"](order)) == 1
    assert len(KILL_SHAPES["majority"](order)) == majority(count)
    assert len(KILL_SHAPES["all"](order)) == count
    assert order[0] not in KILL_SHAPES["followers-majority"](order)
    if count >= 3:
        assert count - len(KILL_SHAPES["minority"](order)) >= majority(count)
        assert count - len(KILL_SHAPES["followers-majority"](order)) < majority(count)
