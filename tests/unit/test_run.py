"""What a run does when its disk fills, its faults break, or its user stops it: everything around it is faked."""

from __future__ import annotations

from collections import Counter

import pytest
from tests_run import Bed, cut

from raftbed.errors import StoreError


@pytest.fixture
def bed(monkeypatch, tmp_path) -> Bed:
    return Bed(monkeypatch, tmp_path)


def phases(directory) -> list[str]:
    return [event.message for event in directory.events() if event.kind == "phase"]


def said(directory, kind: str) -> list[str]:
    return [event.message for event in directory.events() if event.kind == kind]


def is_well_formed(directory) -> bool:
    """Whether no process of the history has two operations open at a time."""
    open_ones: Counter[int | str] = Counter()
    for op in directory.history():
        if isinstance(op.process, int):
            open_ones[op.process] += 1 if op.type == "invoke" else -1
            if op.type == "invoke" and open_ones[op.process] > 1:
                return False
    return True


@pytest.mark.parametrize("file", ["faults.jsonl", "status.jsonl"])
async def test_a_disk_that_is_full_when_others_than_clients_record_ends_the_clients_phase(bed, file):
    run, directory = bed.prepared(schedule=(cut(),))
    bed.full.add(file)
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        await run.execute()
    assert "final-reads" in phases(directory)
    assert directory.manifest().state == "failed"
    if file == "faults.jsonl":  # what could not be noted is healed all the same
        assert [call for call, _, _ in bed.fault.calls] == ["inject", "heal"]
    assert "install nodes" in bed.steps and bed.steps[-1] == "close"


async def test_a_disk_that_is_full_for_a_moment_leaves_a_history_that_can_be_checked(bed):
    run, directory = bed.prepared()

    async def fill() -> None:
        if bed.steps.count("attempt") == 10:
            bed.full.add("history.jsonl")

    async def make_room() -> dict[str, str]:
        bed.full.clear()
        return {}

    bed.hooks |= {"attempt": fill, "lost_hosts": make_room}
    with pytest.raises(StoreError, match="cannot be written: No space left on device"):
        await run.execute()
    history = directory.history()
    ended = {(op.process, op.serial) for op in history if op.type != "invoke"}
    assert any(op.type == "invoke" and (op.process, op.serial) not in ended for op in history)  # open, and no more
    assert is_well_formed(directory)
    assert history[-1].type == "ok"  # a final read


async def test_a_schedule_that_breaks_ends_the_clients_phase_and_is_told_as_it_is(bed, monkeypatch):
    async def broken(*arguments):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("raftbed.faults.nemesis.Nemesis._execute", broken)
    run, directory = bed.prepared(schedule=(cut(),))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        await run.execute()
    assert "final-reads" in phases(directory)
