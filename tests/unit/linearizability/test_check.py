"""The verdict over all keys, its details, and what a check tells while it works."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from typing import Any

import pytest
from linearizability_reference import RandomHistory

from raftbed.analysis.limits import Limited
from raftbed.analysis.linearizability import Progress, check, check_limited, checker, exact, limited
from raftbed.analysis.linearizability.budget import Budget, OutOfBudgetError
from raftbed.analysis.linearizability.checker import Counts, combine, key_names, stopped
from raftbed.analysis.linearizability.search import Search
from raftbed.model import Op


def sequential(*steps: tuple[str, Any, Any]) -> list[Op]:
    """One client's operations, (f, key, value), each acknowledged."""
    events: list[Op] = []
    for f, key, value in steps:
        argument = None if f == "read" else value
        events.append(Op(len(events), 10 * len(events), "invoke", 0, f, key, argument, node="n1"))
        events.append(Op(len(events), 10 * len(events), "ok", 0, f, key, value, node="n2"))
    return events


STALE = sequential(("write", "bad", 1), ("write", "bad", 2), ("read", "bad", 1))


def hard(operations: int = 60) -> list[Op]:
    """A history that takes a search, and a long one: writes that overlap, each value many times."""
    rng = random.Random("hard")
    return RandomHistory(
        rng, "cas-register", operations=operations * 20, processes=40, values=5, pending=0.3, lies=0.02
    ).make()


def test_failing_keys_come_first_and_the_witness_names_its_key() -> None:
    events = sequential(("write", "good", 1), ("read", "good", 1), ("write", "bad", 1), ("read", "bad", 3))
    verdict = check(events)
    assert verdict.checker == "linearizable"
    assert verdict.validity == "invalid"
    assert list(verdict.details["keys"]) == ["bad", "good"]
    assert verdict.details["keys"]["good"] == {
        "validity": "valid",
        "operations": 2,
        "summary": "Linearizable.",
        "method": "unique-values",
    }
    assert verdict.details["witness"]["key"] == "bad"
    assert "On 1 of 2 keys" in verdict.summary
    assert "Key bad: Client 0's read returned 3" in verdict.summary


def test_the_witness_carries_what_a_report_needs() -> None:
    (first, second, read) = check(STALE).details["witness"]["operations"]
    assert (first["text"], second["text"], read["text"]) == ("write 1", "write 2", "read → 1")
    assert read == {
        "index": 4,
        "process": 0,
        "f": "read",
        "value": 1,
        "text": "read → 1",
        "call": 40,
        "return": 50,
        "type": "ok",
        "node": "n2",
        "why": "began after client 0's write of 2 had returned",
    }


def test_details_are_json() -> None:
    assert json.loads(json.dumps(check(STALE).details))["limits"] == {
        "time": None,
        "memory": None,
        "hit": None,
        "key": None,
    }


def test_a_history_in_which_nothing_was_read_is_no_pass() -> None:
    assert check(sequential(("write", "x", 1))).validity == "unknown"
    assert check([]).validity == "unknown"


def test_compare_and_sets_observe_too_and_missing_reads_are_mentioned() -> None:
    verdict = check(sequential(("write", "x", 1), ("cas", "x", [1, 2])), "cas-register")
    assert verdict.validity == "valid"
    assert "No read succeeded" in verdict.summary


def test_invalid_outranks_unknown_outranks_valid() -> None:
    valid = {**stopped("time"), "validity": "valid"}
    invalid = {**stopped("time"), "validity": "invalid"}
    limits = {"time": 1.0, "memory": None, "hit": "time", "key": "u"}
    counts = Counts(keys=3, acknowledged=5, observed=5)
    both = combine("register", {"v": valid, "u": stopped("time"), "i": invalid}, counts=counts, limits=limits)
    assert both.validity == "invalid"
    assert list(both.details["keys"]) == ["i", "u", "v"]
    rest = combine("register", {"v": valid, "u": stopped("time"), "w": valid}, counts=counts, limits=limits)
    assert rest.validity == "unknown"
    assert "Key u: Not decided" in rest.summary
    assert "time limit" in rest.summary


def test_keys_that_were_not_reached_make_the_verdict_unknown() -> None:
    valid = {**stopped("time"), "validity": "valid"}
    limits = {"time": 1.0, "memory": 5, "hit": "memory", "key": None}
    verdict = combine("register", {"v": valid}, counts=Counts(3, 5, 5), limits=limits)
    assert verdict.validity == "unknown"
    assert "2 of 3 keys are not decided" in verdict.summary
    assert "memory limit" in verdict.summary
    assert combine("register", {}, counts=Counts(), limits=limits).validity == "unknown"


def test_a_search_without_time_names_key_and_limit() -> None:
    verdict = check(hard(), time_limit=0.0)
    assert verdict.validity == "unknown"
    assert verdict.details["limits"] == {"time": 0.0, "memory": None, "hit": "time", "key": "k0"}
    assert "Key k0: Not decided: the search for an order of" in verdict.summary


def test_a_search_without_memory_names_the_limit() -> None:
    verdict = check(hard(), memory_limit=1)
    assert verdict.validity == "unknown"
    assert verdict.details["limits"]["hit"] == "memory"


def test_one_hard_key_does_not_hide_an_invalid_one() -> None:
    shifted = [Op(op.index, op.time, op.type, 900, op.f, op.key, op.value) for op in STALE]
    verdict = check([*hard(), *shifted], time_limit=0.0)
    assert verdict.validity == "invalid"
    assert verdict.details["keys"]["k0"]["validity"] == "unknown"


def test_progress_tells_what_begins_and_what_is_decided() -> None:
    told: list[Progress] = []
    repeated = sequential(("write", "r", 1), ("write", "r", 1), ("read", "r", 1))
    more = [Op(op.index, op.time, op.type, 7, op.f, op.key, op.value) for op in STALE]
    check([*repeated, *more], progress=told.append)
    assert [(entry.event, entry.key) for entry in told] == [
        ("started", ""),
        ("decided", "bad"),
        ("explained", "bad"),
        ("searching", "r"),
        ("decided", "r"),
    ]
    assert told[0].counts == Counts(keys=2, acknowledged=6, observed=2)


def test_keys_of_any_kind_have_names_of_their_own() -> None:
    names = key_names(["1", 1, None, "null", [1, "a"]])
    assert len(set(names)) == 5
    assert names[0] == "1"


def test_the_name_of_a_key_is_no_other_keys_whatever_those_are_called() -> None:
    keys = ["1", 1, "1 (not a string)", "null", None, "null (not a string)", "null (not a string) (not a string)"]
    for order in itertools.permutations(keys):
        names = dict(zip(map(repr, order), key_names(order), strict=True))
        assert len(set(names.values())) == len(keys)
        assert all(names[repr(key)] == key for key in keys if isinstance(key, str))


def test_a_budget_raises_what_ran_out() -> None:
    Budget().check()
    with pytest.raises(OutOfBudgetError, match="time"):
        Budget(seconds=-1).check()
    with pytest.raises(OutOfBudgetError, match="memory"):
        Budget(memory=1).check()


def test_in_a_child_the_verdict_is_the_same() -> None:
    told: list[Progress] = []
    assert check_limited(STALE, progress=told.append).summary == check(STALE).summary
    assert [entry.event for entry in told] == ["started", "decided", "explained"]


def test_an_explanation_that_takes_too_much_takes_no_verdict_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_arguments: Any) -> None:
        raise MemoryError

    def here(function: Any, *arguments: Any, receive: Any, **_limits: Any) -> Limited:
        """As `run_limited`, in this process."""
        with contextlib.suppress(MemoryError):
            return Limited(function(lambda batch: receive(list(batch)), *arguments), None)
        return Limited(None, "memory")

    monkeypatch.setattr(limited, "run_limited", here)
    monkeypatch.setattr(checker, "explain", too_much)
    more = [Op(op.index, op.time, op.type, 7, op.f, "worse", op.value) for op in STALE]
    verdict = check_limited([*STALE, *more])
    assert verdict.validity == "invalid"
    assert {name: result["validity"] for name, result in verdict.details["keys"].items()} == {
        "bad": "invalid",
        "worse": "invalid",
    }
    assert "not found out within the limits" in verdict.details["keys"]["bad"]["summary"]
    assert verdict.details["witness"] is None


def test_where_the_search_got_stuck_takes_no_verdict_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory_for_more(*arguments: Any, look_ahead: bool = True) -> Search:
        if not look_ahead:
            raise MemoryError
        return Search(*arguments)

    monkeypatch.setattr(exact, "Search", without_memory_for_more)
    wrong = [
        Op(0, 0, "invoke", 0, "append", "x", "a"),
        Op(1, 1, "ok", 0, "append", "x", "a"),
        Op(2, 2, "invoke", 0, "get", "x"),
        Op(3, 3, "ok", 0, "get", "x", "b"),
    ]
    assert check(wrong).validity == "invalid"
