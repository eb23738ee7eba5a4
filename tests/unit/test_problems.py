"""What a failed request says of its fate: whether the write may have happened."""

from __future__ import annotations

import pytest

from raftbed.nodes import problems
from raftbed.nodes.raft import (
    ChangeConfigError,
    ConfigChangeAbandoned,
    ConfigChangeInProgress,
    ConfigChangeUnknown,
    InoperableConfig,
    LeadershipLost,
    NodeNotLeader,
    Noop,
    Overloaded,
    ReadForwardToLeader,
    ShuttingDown,
    WriteForwardToLeader,
)


@pytest.mark.parametrize(
    ("error", "status", "code", "definite"),
    [
        (WriteForwardToLeader("x", "n2"), 421, "not-leader", True),
        (WriteForwardToLeader("x", None), 503, "no-leader", True),
        (Overloaded("9 entries are not committed yet"), 503, "overloaded", True),
        (LeadershipLost("deposed"), 503, "leadership-lost", False),
        (ShuttingDown(), 503, "shutting-down", False),
        (TimeoutError(), 504, "timeout", False),
    ],
)
def test_whether_a_write_may_have_happened(error, status, code, definite):
    problem = problems.of_write("n1", error)
    assert (problem.status, problem.code, problem.definite) == (status, code, definite)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ReadForwardToLeader("n2"), 421, "not-leader"),
        (ReadForwardToLeader(None), 503, "no-leader"),
        (ReadForwardToLeader("n1"), 503, "read-not-confirmed"),
        (ShuttingDown(), 503, "shutting-down"),
        (TimeoutError(), 503, "read-not-confirmed"),
    ],
)
def test_a_read_never_had_an_effect(error, status, code):
    problem = problems.of_read("n1", error)
    assert (problem.status, problem.code, problem.definite) == (status, code, True)


CHANGES = [
    (NodeNotLeader("n2"), 421, "not-leader", True),
    (InoperableConfig(), 400, "inoperable-config", True),
    (ConfigChangeInProgress(), 409, "change-in-progress", True),
    (ConfigChangeAbandoned("it was taken back"), 409, "change-abandoned", True),
    (Noop(), 409, "no-change", True),
    (ConfigChangeUnknown("deposed"), 503, "leadership-lost", False),
]


@pytest.mark.parametrize(("error", "status", "code", "definite"), CHANGES)
def test_what_became_of_a_change_of_the_membership(error, status, code, definite):
    problem = problems.of_change("n1", error)
    assert (problem.status, problem.code, problem.definite) == (status, code, definite)


def test_every_way_in_which_a_change_fails_has_an_answer():
    assert {type(error) for error, *_ in CHANGES} == set(ChangeConfigError.__subclasses__())
