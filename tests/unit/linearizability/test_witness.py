"""Witnesses of long chains and circles: what they show, and that it takes no more than a pass over the operations."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from raftbed.analysis.linearizability import check
from raftbed.model import Op


def history(*steps: tuple[str, int, str, Any]) -> list[Op]:
    """Events from (type, process, f, value)."""
    return [Op(index, index, kind, process, f, "x", value) for index, (kind, process, f, value) in enumerate(steps)]


def chain(length: int, fate: str = "ok") -> list[Op]:
    """A write that ends before the last of many compare-and-sets begins, and begins before the first."""
    steps: list[tuple[str, int, str, Any]] = [("invoke", 1, "write", "w")]
    links = [[number or None, number + 1] for number in range(length)]
    for number, link in enumerate(links):
        steps += [("invoke", number + 5, "cas", link), (fate, number + 5, "cas", link)]
    steps += [("ok", 1, "write", "w"), ("invoke", 2, "read", None), ("ok", 2, "read", "w")]
    return history(*steps, ("invoke", 3, "read", None), ("ok", 3, "read", length))


def circle(length: int, fate: str = "ok") -> list[Op]:
    """Compare-and-sets that each need the value of the one before, and the first that of the last; and a read."""
    steps = [("invoke", number, "cas", [number, (number + 1) % length]) for number in range(length)]
    steps += [(fate, process, f, value) for _invoke, process, f, value in steps]
    return history(*steps, ("invoke", length, "read", None), ("ok", length, "read", 1))


def phantom(length: int) -> list[Op]:
    """A value that nobody wrote, replaced by many pending compare-and-sets, the last of which was seen."""
    steps: list[tuple[str, int, str, Any]] = []
    for number in range(length):
        steps += [("invoke", number, "cas", [number, number + 1]), ("info", number, "cas", [number, number + 1])]
    return history(*steps, ("invoke", length, "read", None), ("ok", length, "read", length))


def many_conflicts(length: int) -> list[Op]:
    """A chain of many, and as many writes inside it."""
    steps: list[tuple[str, int, str, Any]] = []
    for number in range(length):
        link = [number or None, number + 1]
        steps += [("invoke", 0, "cas", link), ("ok", 0, "cas", link)]
        steps += [("invoke", 0, "write", -number - 1), ("ok", 0, "write", -number - 1)]
    return history(*steps)


MADE: list[Callable[[int], list[Op]]] = [
    chain,
    lambda length: chain(length, "info"),
    circle,
    lambda length: circle(length, "info"),
    phantom,
    many_conflicts,
]
NAMES = ["chain", "pending chain", "circle", "pending circle", "phantom", "conflicts"]


def calls(events: list[Op]) -> int:
    """How many functions are called (of Python and of C, generators each time) to check a history."""
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    present = sys.getprofile()
    sys.setprofile(note)
    try:
        assert check(events, "cas-register").validity == "invalid"
    finally:
        sys.setprofile(present)
    return count


@pytest.mark.parametrize("make", MADE, ids=NAMES)
def test_an_explanation_takes_one_pass(make: Callable[[int], list[Op]]) -> None:
    assert calls(make(1600)) < 2.5 * calls(make(800))  # twice as many for twice the operations; four times if squared


@pytest.mark.parametrize("make", MADE, ids=NAMES)
def test_a_long_witness_is_cut_and_says_by_how_much(make: Callable[[int], list[Op]]) -> None:
    witness = check(make(2000), "cas-register").details["witness"]
    assert len(witness["operations"]) <= 6
    assert witness["left_out"] + len(witness["operations"]) in range(2000, 2006) or make is many_conflicts


def test_a_circle_of_which_nobody_knows_the_fate_shows_who_looked_into_it() -> None:
    witness = check(circle(2, "info"), "cas-register").details["witness"]
    assert [entry["text"] for entry in witness["operations"]] == ["cas 0 → 1", "cas 1 → 0", "read → 1"]
    assert "happened, as client 2's read of 1 shows, although" in witness["sentence"]


def test_of_a_long_circle_the_operation_that_happened_for_certain_is_shown() -> None:
    events = [op for op in circle(30, "info") if op.f == "cas"]
    acknowledged = [Op(op.index, op.time, "ok" if op.type == "info" and op.process == 17 else op.type, op.process, op.f,
                       op.key, op.value) for op in events]  # fmt: skip
    witness = check(acknowledged, "cas-register").details["witness"]
    assert 17 in [entry["process"] for entry in witness["operations"]]
    assert witness["left_out"] == 24


def test_where_there_is_no_room_for_all_what_the_argument_stands_on_comes_before_who_wrote_a_value() -> None:
    """Two chains that each show themselves before the other, by pending operations: eight operations are involved."""
    open_at_once = [("write", 1), ("write", 2), ("read", 1), ("read", 2), ("read", 3), ("read", 4)]
    begun = [("invoke", process, f, None if f == "read" else value) for process, (f, value) in enumerate(open_at_once)]
    ended = [("ok", process, f, value) for process, (f, value) in enumerate(open_at_once)]
    later = [("invoke", 6, "cas", [1, 3]), ("invoke", 7, "cas", [2, 4])]
    verdict = check(history(*begun, *ended[2:4], *later, *ended[4:], *ended[:2]), "cas-register")
    assert verdict.validity == "invalid"
    witness = verdict.details["witness"]
    assert [entry["text"] for entry in witness["operations"]] == [
        "read → 1", "read → 2", "read → 3", "read → 4", "cas 1 → 3", "cas 2 → 4",
    ]  # fmt: skip
    assert witness["left_out"] == 2
