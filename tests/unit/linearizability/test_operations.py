"""From events to operations: what is understood, and what is refused with which words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftbed.analysis.linearizability import check, infer_model
from raftbed.analysis.linearizability.operations import NEVER, split, token
from raftbed.errors import HistoryError, UsageError
from raftbed.model import Op


def history(*steps: tuple[Any, ...]) -> list[Op]:
    """Events from (type, process, f, value[, key])."""
    return [
        Op(index, 10 * index, kind, process, f, key[0] if key else "x", value)
        for index, (kind, process, f, value, *key) in enumerate(steps)
    ]


def test_operations_are_paired_and_sorted_by_key_and_call() -> None:
    events = history(
        ("invoke", 0, "write", 1),
        ("invoke", 1, "write", 2, "y"),
        ("invoke", "nemesis", "partition", None),
        ("invoke", 2, "read", None),
        ("ok", 2, "read", 1),
        ("ok", "nemesis", "partition", None),
        ("ok", 0, "write", 1),
    )
    x, y = split(events, "register")
    assert [(op.kind, op.call, op.end, op.old, op.new) for op in x.operations] == [
        ("write", 0, 6, None, 1),
        ("read", 3, 4, 1, None),
    ]
    assert [(op.kind, op.call, op.end) for op in y.operations] == [("write", 1, NEVER)]
    assert (x.acknowledged, x.observed, y.acknowledged) == (2, 1, 0)


def test_what_tells_nothing_is_left_out() -> None:
    events = history(
        ("invoke", 0, "read", None),  # without an answer
        ("invoke", 1, "read", None),
        ("info", 1, "read", None),
        ("invoke", 2, "read", None),
        ("fail", 2, "read", None),
        ("invoke", 2, "write", 3),
        ("fail", 2, "write", 3),
        ("invoke", 3, "cas", [4, 4]),  # would change nothing, and nobody knows whether it did
        ("invoke", 2, "cas", [5, 5]),
        ("ok", 2, "cas", [5, 5]),
    )
    (x,) = split(events, "cas-register")
    assert [(op.kind, op.old) for op in x.operations] == [("read", 5)]
    assert [op.new for op in x.failed] == [3]


def test_values_are_told_apart_as_json_does() -> None:
    values = [None, True, 1, "1", "true", [1], ["1"], {"a": 1}, 0, False, 1.5, ""]
    assert len({token(value) for value in values}) == len(values)
    assert token(1.0) == token(1)
    assert token({"a": 1, "b": 2}) == token({"b": 2, "a": 1})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([-0.0, 0.5, 1e300]) | st.text("a1", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3),
)


def as_floats(value: Any) -> Any:
    """The same JSON value, with a fraction of nothing behind every integer."""
    if isinstance(value, list):
        return [as_floats(item) for item in value]
    if isinstance(value, dict):
        return {name: as_floats(value[name]) for name in reversed(value)}
    return float(value) if type(value) is int else value


def as_json_compares(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same one."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(as_json_compares, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(as_json_compares(one[name], other[name]) for name in one)
    return bool(one == other)


@given(json_values, json_values)
def test_tokens_are_equal_exactly_when_the_values_are(one: Any, other: Any) -> None:
    assert token(one) == token(as_floats(one))
    assert (token(one) == token(other)) == as_json_compares(one, other)


@pytest.mark.parametrize(
    ("events", "model", "index", "words"),
    [
        ([("ok", 0, "read", 1)], "register", 0, "no operation open"),
        ([("invoke", 0, "read", None), ("invoke", 0, "read", None)], "register", 1, "invoked at event 0"),
        ([("invoke", 0, "append", "a")], "register", 0, "has no such operation; it has read, write"),
        ([("invoke", 0, "cas", 3)], "cas-register", 0, "carries [old, new]"),
        ([("invoke", 0, "cas", [1, 2, 3])], "cas-register", 0, "carries [old, new]"),
        ([("invoke", 0, "append", 3)], "kv-append", 0, "needs a string"),
        ([("invoke", 0, "get", None), ("ok", 0, "get", 3)], "kv-append", 1, "needs a string"),
        ([("invoke", 0, "read", None), ("ok", 0, "write", 1)], "register", 1, "completes 'read'"),
        ([("invoke", 0, "write", 1), ("ok", 0, "write", 2)], "register", 1, "was invoked with 1"),
        ([("invoke", 0, "write", 1), ("ok", 0, "write", 1, "y")], "register", 1, "invoked with key 'x'"),
    ],
)
def test_malformed_histories_are_refused(events: list[Any], model: str, index: int, words: str) -> None:
    with pytest.raises(HistoryError) as caught:
        check(history(*events), model)
    assert f"Event {index} of the history" in str(caught.value)
    assert words in str(caught.value)


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("where", ["argument", "answer", "key"])
def test_what_is_nested_too_deeply_to_be_compared_is_refused(where: str) -> None:
    deep = nested(5000)
    argument, answer, key = (deep if part == where else None for part in ("argument", "answer", "key"))
    asked = ("write", argument) if where == "argument" else ("read", None)
    events = [("invoke", 0, *asked, key), ("ok", 0, asked[0], argument or answer)]
    with pytest.raises(HistoryError, match=r"Event 0 of the history .* is nested too deeply") as caught:
        check([Op(i, i, *event[:3], event[4] if len(event) > 4 else None, event[3]) for i, event in enumerate(events)])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("functions", "model"),
    [
        (("read", "write"), "register"),
        (("read",), "register"),
        (("read", "write", "cas"), "cas-register"),
        (("get", "append"), "kv-append"),
        (("put",), "kv-append"),
    ],
)
def test_the_model_is_inferred_from_the_names(functions: tuple[str, ...], model: str) -> None:
    assert infer_model(history(*[("invoke", i, f, None) for i, f in enumerate(functions)])) == model


def test_a_model_that_cannot_be_told_is_an_error_that_names_what_was_found() -> None:
    with pytest.raises(HistoryError, match="'enqueue', 'read'") as caught:
        infer_model(history(("invoke", 0, "read", None), ("invoke", 1, "enqueue", 1)))
    assert "cas-register: read, write, cas" in str(caught.value)


def test_faults_alone_have_no_model() -> None:
    assert infer_model(history(("invoke", "nemesis", "kill", None))) is None
    assert check(history(("invoke", "nemesis", "kill", None))).validity == "unknown"


def test_a_model_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match=r"no model 'stack'.*kv-append"):
        check([], "stack")
