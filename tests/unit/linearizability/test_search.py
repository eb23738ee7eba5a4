"""The stages of the exact search one by one: what each may conclude, and what it must not."""

from __future__ import annotations

import random

import pytest
from linearizability_reference import RandomHistory, linearizable

from raftbed.analysis.linearizability import exact
from raftbed.analysis.linearizability.budget import Budget
from raftbed.analysis.linearizability.explain_search import stale_witness
from raftbed.analysis.linearizability.operations import KeyHistory, Operation, split
from raftbed.analysis.linearizability.search import Search
from raftbed.model import Op


def written_as(story: str) -> list[Operation]:
    """Operations on one key from a line: "+0 write 1" invokes as client 0, "=0" or "=0 1" ends it."""
    events: list[Op] = []
    running: dict[int, tuple[str, object]] = {}
    for part in story.split(";"):
        who, *rest = part.split()
        client = int(who[1:])
        if who[0] == "+":
            f, *values = rest
            numbers = [int(value) for value in values]
            running[client] = (f, None if f == "read" else numbers if f == "cas" else numbers[0])
            events.append(Op(len(events), len(events), "invoke", client, f, "x", running[client][1]))
        else:
            f, value = running.pop(client)
            events.append(Op(len(events), len(events), "ok", client, f, "x", int(rest[0]) if rest else value))
    (history,) = split(events, "cas-register")
    return history.operations


def test_of_equal_operations_a_relaxation_settles_one_that_is_owed() -> None:
    # Both compare-and-sets must have happened before the last write, while both were open.
    operations = written_as(
        "+9 write 0;=9;+1 cas 0 1;+2 cas 0 1;+9 read;=9 1;+9 write 0;=9;+9 read;=9 1;+9 write 5;=9;+9 read;=9 5;=1;=2"
    )
    assert Search(operations, None, Budget()).run()
    assert Search(operations, None, Budget(), "relaxed").run()


def test_a_relaxation_that_ends_well_proves_nothing() -> None:
    # One write of 1 cannot serve both reads, but it may when it is never used up.
    operations = written_as("+1 write 1;+9 read;=9 1;+9 write 2;=9;+9 read;=9 2;+9 read;=9 1;=1")
    assert Search(operations, None, Budget(), "relaxed").run()
    assert not Search(operations, None, Budget()).run()


@pytest.mark.parametrize("stages", [(1, 5), (5,), (0, 1, 2, 3, 4, 5), (1, 3, 5)])
def test_every_selection_of_stages_that_ends_with_the_exact_one_is_right(
    stages: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "_STAGES", tuple(exact._STAGES[number] for number in stages))
    rng = random.Random(f"stages:{stages}")
    for _ in range(400):
        events = RandomHistory(
            rng, "cas-register", operations=9, processes=6, values=rng.choice([2, 3]), pending=0.3, lies=0.2
        ).make()
        (history,) = split(events, "cas-register")
        expected = "valid" if linearizable(events, "cas-register") else "invalid"
        assert exact.decide(history, "cas-register", Budget()).validity == expected


def test_a_beam_that_left_something_out_says_so() -> None:
    operations = written_as("+1 write 1;+2 write 2;+3 write 3;+9 write 4;=9;+9 read;=9 2;=1;=2;=3")
    narrow = Search(operations, None, Budget(), "beam", width=1, depth=1)
    assert narrow.run() or not narrow.complete
    wide = Search(operations, None, Budget(), "beam", width=1000, depth=1000)
    assert wide.run()
    assert wide.complete


def test_where_no_order_was_left() -> None:
    operations = written_as("+1 write 1;=1;+2 write 2;+9 read;=9 7;=2")
    search = Search(operations, None, Budget())
    assert not search.run()
    assert search.stuck is not None
    assert search.stuck.operation.old == 7
    assert search.stuck.values == [1]
    assert [operation.new for operation in search.stuck.concurrent] == [2]


def key_history(story: str) -> KeyHistory:
    return KeyHistory("x", written_as(story))


def test_only_what_was_overwritten_for_certain_is_called_stale() -> None:
    # The second write of 1 had not returned when 2 was written: it may have come after it.
    assert stale_witness(key_history("+0 write 1;=0;+1 write 2;+0 write 1;=0;=1;+3 read;=3 1")) is None
    witness = stale_witness(key_history("+0 write 1;=0;+0 write 1;=0;+1 write 2;=1;+3 read;=3 1"))
    assert witness is not None
    assert "both operations that wrote 1 had returned before that one began" in witness.sentence
