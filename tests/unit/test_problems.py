"""What a failed request says of its fate: whether the write may have happened."""

from __future__ import annotations

import pytest

from raftbed.nodes import problems
from raftbed.nodes.raft import (
    LeadershipLost,
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
