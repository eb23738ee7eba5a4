"""The key-value state machine and its sessions: what a command does, and that one that comes twice is done once."""

from __future__ import annotations

from typing import Any

import pytest

from raftbed.nodes.state_machine import KeyValueStateMachine, Result, same_value


def put(key: str, value: Any, **session: Any) -> dict[str, Any]:
    return {"op": "put", "key": key, "value": value, **session}


def cas(key: str, old: Any, new: Any, **session: Any) -> dict[str, Any]:
    return {"op": "cas", "key": key, "old": old, "new": new, **session}


# -- the map ----------------------------------------------------------------------------------------------------------


def test_a_key_holds_what_was_put_last():
    machine = KeyValueStateMachine()
    assert machine.read("k") is None
    assert machine.apply(put("k", 1)) == Result("done", 1)
    assert machine.apply(put("k", [2])) == Result("done", [2])
    assert (machine.read("k"), machine.read("other")) == ([2], None)


def test_a_compare_and_set_that_matches():
    machine = KeyValueStateMachine()
    assert machine.apply(cas("k", None, 1)) == Result("done", 1)
    assert machine.apply(cas("k", 1, 2)) == Result("done", 2)
    assert machine.read("k") == 2


def test_a_compare_and_set_that_does_not_match_changes_nothing_and_says_what_is_there():
    machine = KeyValueStateMachine()
    machine.apply(put("k", 1))
    assert machine.apply(cas("k", 7, 2)) == Result("precondition-failed", 1)
    assert machine.read("k") == 1


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (None, False, False),
        ("1", 1, False),
        ([1, [2]], [1, [2]], True),
        ([True], [1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": True}, {"a": 1}, False),
        ([], {}, False),
    ],
)
def test_values_are_compared_as_json(left, right, same):
    assert same_value(left, right) is same
    assert same_value(right, left) is same


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_a_command_that_comes_twice_is_done_once_and_answered_twice():
    machine = KeyValueStateMachine()
    first = cas("k", None, 1, client="c", serial=1)
    assert machine.apply(first) == Result("done", 1)
    machine.apply(put("k", 2))  # by somebody else, in between
    assert machine.apply(first) == Result("done", 1), "the same answer, though the key does not match any more"
    assert machine.read("k") == 2


def test_a_refusal_is_remembered_too():
    """Else a compare-and-set that was answered "did not match" could be executed by its own late copy."""
    machine = KeyValueStateMachine()
    command = cas("k", 1, 2, client="c", serial=1)
    assert machine.apply(command) == Result("precondition-failed", None)
    machine.apply(put("k", 1))
    assert machine.apply(command) == Result("precondition-failed", None)
    assert machine.read("k") == 1


def test_the_late_copy_of_an_earlier_command_is_not_executed():
    machine = KeyValueStateMachine()
    early = put("k", "early", client="c", serial=1)
    machine.apply(early)
    machine.apply(put("k", "late", client="c", serial=2))
    assert machine.apply(early) == Result("stale-serial", None)
    assert machine.read("k") == "late"


def test_serials_may_have_gaps():
    machine = KeyValueStateMachine()
    assert machine.apply(put("k", 1, client="c", serial=5)).outcome == "done"
    assert machine.apply(put("k", 2, client="c", serial=9)).outcome == "done"
    assert machine.apply(put("k", 3, client="c", serial=7)).outcome == "stale-serial"


def test_each_client_has_its_own_session():
    machine = KeyValueStateMachine()
    assert machine.apply(put("k", 1, client="a", serial=1)) == Result("done", 1)
    assert machine.apply(put("k", 2, client="b", serial=1)) == Result("done", 2)


def test_without_a_session_a_command_is_done_as_often_as_it_comes():
    machine = KeyValueStateMachine()
    machine.apply(put("k", 1))
    machine.apply(put("k", 2))
    assert machine.apply(put("k", 1)) == Result("done", 1)


def test_all_nodes_come_to_the_same_answers():
    commands = [
        put("k", 1, client="a", serial=1),
        cas("k", 1, 2, client="b", serial=1),
        put("k", 1, client="a", serial=1),
        cas("k", 1, 3),
    ]
    one, other = KeyValueStateMachine(), KeyValueStateMachine()
    assert [one.apply(command) for command in commands] == [other.apply(command) for command in commands]
