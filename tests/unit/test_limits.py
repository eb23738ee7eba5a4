"""A function in a process of its own: its answer, its messages, its errors, and its end at a limit."""

from __future__ import annotations

import os
import time
from typing import Any, Literal

import pytest

from raftbed.analysis import limits
from raftbed.analysis.limits import ChildFailedError, Limited, Send, run_limited
from raftbed.analysis.linearizability import limited
from raftbed.analysis.linearizability.checker import Counts, Progress, stopped
from raftbed.errors import HistoryError
from raftbed.model import Op

MIB = 1 << 20


def double(send: Send, number: int) -> int:
    send(("working on", number))
    return 2 * number


def stays() -> None:
    while True:
        time.sleep(0.01)


def never_ends(send: Send) -> None:
    send("began")
    stays()


def burns(send: Send) -> None:
    while True:
        pass


def grows(send: Send) -> None:
    send("began")
    held = []
    for _ in range(600):
        held.append(bytearray(MIB))


def fails(send: Send) -> None:
    raise HistoryError("Event 3 is wrong.", remedy="Right it.")


def dies(send: Send) -> None:
    os._exit(7)


def answers_what_cannot_travel(send: Send) -> Any:
    return lambda: None


@pytest.mark.parametrize("start", ["fork", None])
def test_answer_and_messages_arrive(start: Literal["fork"] | None) -> None:
    received: list[Any] = []
    outcome = run_limited(double, 21, time_limit=60, memory_limit=512 * MIB, receive=received.append, start=start)
    assert outcome == Limited(42, None)
    assert received == [("working on", 21)]


def test_a_spawned_child_answers_too() -> None:
    # A spawned child imports its function, which therefore is one of the product's.
    history = [Op(0, 0, "invoke", 0, "write", "x", 1), Op(1, 1, "ok", 0, "write", "x", 1)]
    arguments = (history, None, None, None)
    outcome = run_limited(limited._check_and_tell, *arguments, start="spawn", time_limit=60, memory_limit=512 * MIB)
    assert outcome.value.summary.startswith("Nothing to check: no read succeeded")


def test_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_GRACE", 0.1)
    received: list[Any] = []
    assert run_limited(never_ends, time_limit=0.2, receive=received.append) == Limited(None, "time")
    assert received == ["began"]


def test_the_kernel_stops_a_child_whose_parent_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits._Parent, "_limit_hit", lambda self: None)
    monkeypatch.setattr(limits, "_GRACE", 0.0)
    assert run_limited(burns, time_limit=0) == Limited(None, "time")


def test_memory_is_used_up() -> None:
    received: list[Any] = []
    assert run_limited(grows, memory_limit=64 * MIB, receive=received.append) == Limited(None, "memory")
    assert received == ["began"]


def test_the_kernel_refuses_memory_to_a_child_whose_parent_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits._Parent, "_limit_hit", lambda self: None)
    assert run_limited(grows, memory_limit=64 * MIB) == Limited(None, "memory")


def test_resident_memory_is_watched_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_set_limits", lambda time_limit, memory_limit: None)
    assert run_limited(grows, memory_limit=64 * MIB) == Limited(None, "memory")


def test_an_error_is_raised_as_it_was_with_the_childs_traceback() -> None:
    with pytest.raises(HistoryError, match="Right it") as caught:
        run_limited(fails)
    assert "in fails" in caught.value.__notes__[0]


def test_a_child_that_dies_otherwise_is_an_error() -> None:
    with pytest.raises(ChildFailedError, match="status 7"):
        run_limited(dies)


def test_an_answer_that_cannot_travel_is_an_error() -> None:
    with pytest.raises(ChildFailedError, match="lambda"):
        run_limited(answers_what_cannot_travel)


def test_no_process_is_left_when_the_parent_is_interrupted() -> None:
    pids: list[int] = []

    def interrupt(message: Any) -> None:
        pids.append(message)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_limited(tell_pid_and_stay, receive=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def tell_pid_and_stay(send: Send) -> None:
    send(os.getpid())
    stays()


def decides_two_of_three_keys(validity: str) -> Any:
    counts = Counts(keys=3, acknowledged=9, observed=5)

    def child(send: Send, *_arguments: Any) -> None:
        first = {**stopped("time"), "validity": validity, "summary": "decided"}
        send([Progress("started", counts, "register"), Progress("decided", counts, "register", "a", first)])
        second = {**first, "validity": "valid"}
        send([Progress("decided", counts, "register", "b", second), Progress("searching", counts, "register", "c")])
        stays()

    return child


@pytest.mark.parametrize(("found", "verdict"), [("valid", "unknown"), ("invalid", "invalid")])
def test_what_was_decided_before_a_check_was_cut_off_counts(
    monkeypatch: pytest.MonkeyPatch, found: str, verdict: str
) -> None:
    monkeypatch.setattr(limits, "_GRACE", 0.1)
    monkeypatch.setattr(limited, "_check_and_tell", decides_two_of_three_keys(found))
    outcome = limited.check_limited([Op(0, 0, "invoke", 0, "read")], time_limit=0.3)
    assert outcome.validity == verdict
    assert {key: result["validity"] for key, result in outcome.details["keys"].items()} == {
        "a": found,
        "b": "valid",
        "c": "unknown",
    }
    assert outcome.details["limits"] == {"time": 0.3, "memory": limited.DEFAULT_MEMORY_LIMIT, "hit": "time", "key": "c"}
    if verdict == "unknown":
        assert "Key c: Not decided" in outcome.summary
        assert "time limit" in outcome.summary
