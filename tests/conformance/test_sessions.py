"""Exactly once, for ever: raft.md section 3, sessions. Thesis 6.3."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from raftbed.nodes.state_machine import KeyValueStateMachine, Result, Sessions


def put(value: Any, client: str, serial: int) -> dict[str, Any]:
    return {"op": "put", "key": "k", "value": value, "client": client, "serial": serial}


def register(machine: KeyValueStateMachine) -> str:
    name = machine.apply({"op": "register"}).value
    assert isinstance(name, str)
    return name


def after_a_snapshot(machine: KeyValueStateMachine) -> KeyValueStateMachine:
    """Another node's state machine, made of a snapshot of this one."""
    made = KeyValueStateMachine(max_sessions=1)  # whatever it was before does not matter
    made.load(iter(machine.capture()()))()
    return made


def test_a_command_that_comes_twice_is_done_once_though_a_snapshot_came_between():
    machine = KeyValueStateMachine()
    machine.apply(put(1, "a", 1))
    machine.apply({"op": "cas", "key": "k", "old": 9, "new": 2, "client": "b", "serial": 1})
    machine.apply(put(2, "c", 1))
    machine = after_a_snapshot(machine)
    assert machine.apply(put(1, "a", 1)) == Result("done", 1), "answered as it was"
    again = machine.apply({"op": "cas", "key": "k", "old": 9, "new": 2, "client": "b", "serial": 1})
    assert again == Result("precondition-failed", 1)
    assert machine.read("k") == 2, "and not done again"


def test_the_session_that_was_not_used_for_the_longest_expires():
    machine = KeyValueStateMachine(max_sessions=2)
    machine.apply(put(1, "a", 1))
    machine.apply(put(2, "b", 1))
    machine.apply(put(3, "a", 2))
    machine.apply(put(4, "c", 1))  # the third: b's session expires
    assert machine.apply(put(9, "b", 2)) == Result("session-expired", None)
    assert machine.apply(put(5, "a", 3)) == Result("done", 5)
    assert machine.read("k") == 5


def test_an_expired_session_is_an_error_and_never_a_second_execution():
    machine = KeyValueStateMachine(max_sessions=2)
    for client in ("a", "b", "c"):
        machine.apply(put(client, client, 1))
    assert machine.apply(put("a", "a", 1)) == Result("session-expired", None), "the first command of all, again"
    assert machine.read("k") == "c"


def test_a_retry_keeps_a_session_alive():
    machine = KeyValueStateMachine(max_sessions=2)
    machine.apply(put(1, "a", 1))
    machine.apply(put(2, "b", 1))
    machine.apply(put(1, "a", 1))
    machine.apply(put(3, "c", 1))
    assert machine.apply(put(9, "b", 1)).outcome == "session-expired"
    assert machine.apply(put(1, "a", 1)).outcome == "done"


def test_names_that_clients_choose_serve_until_a_session_has_expired():
    machine = KeyValueStateMachine(max_sessions=1)
    assert machine.apply(put(1, "a", 1)).outcome == "done"
    assert machine.apply(put(2, "b", 1)).outcome == "done"
    assert machine.apply(put(3, "new", 1)).outcome == "session-expired", "or is it new? nobody can tell"
    assert machine.apply(put(4, register(machine), 1)).outcome == "done"


def test_registered_names_are_never_given_twice():
    machine = KeyValueStateMachine(max_sessions=2)
    names = [register(machine) for _ in range(5)]
    names += [register(after_a_snapshot(machine))]
    assert len(set(names)) == 6
    assert machine.apply(put(1, names[0], 1)).outcome == "session-expired"
    assert machine.apply(put(1, names[4], 1)).outcome == "done"


def test_a_registered_name_cannot_be_claimed():
    machine = KeyValueStateMachine()
    assert machine.apply(put(1, "session-7", 1)).outcome == "session-expired"
    assert machine.read("k") is None


@pytest.mark.parametrize("seed", range(5))
def test_expiry_is_the_same_on_all_nodes(seed):
    """One that applied everything, and one that began with a snapshot somewhere on the way."""
    random = Random(seed)
    one = KeyValueStateMachine(max_sessions=5)
    other: KeyValueStateMachine | None = None
    for step in range(300):
        command = put(step, f"c{random.randrange(8)}", random.randrange(1, 50))
        command = {"op": "register"} if random.random() < 0.05 else command
        answer = one.apply(command)
        if other is not None:
            assert other.apply(command) == answer
        elif step == 150:
            other = after_a_snapshot(one)
    assert other is not None
    assert [*one.capture()()] == [*other.capture()()]


def test_a_snapshot_is_of_the_moment_at_which_it_was_captured():
    machine = KeyValueStateMachine()
    machine.apply(put("before", "a", 1))
    pieces = machine.capture()
    machine.apply(put("after", "a", 2))
    machine.apply({"op": "put", "key": "new", "value": 1})
    made = KeyValueStateMachine()
    made.load(iter(pieces()))()
    assert (made.read("k"), made.read("new")) == ("before", None)
    assert made.apply(put("after", "a", 2)) == Result("done", "after")


def test_a_snapshot_comes_in_many_pieces():
    """So that no piece holds the interpreter for long, and the node goes on meanwhile."""
    machine = KeyValueStateMachine()
    for number in range(1000):
        machine.apply({"op": "put", "key": f"k{number}", "value": number})
    pieces: Iterator[bytes] = machine.capture()()
    assert sum(1 for _ in pieces) > 30


def test_the_number_of_sessions_is_bounded():
    sessions = Sessions(limit=10)
    for number in range(1000):
        sessions.remember(f"c{number}", 1, Result("done", number))
    assert sum(sessions.lookup(f"c{number}", 1) == Result("done", number) for number in range(1000)) == 10
