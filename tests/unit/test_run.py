"""What a run does when its disk fills, its faults break, or its user stops it: everything around it is faked."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from tests_run import Bed, cut
from tests_support import make_plan_for_tests

from raftbed.errors import HostError, Interrupted, RaftbedError, StoreError
from raftbed.systems.raft import RaftSystem


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


async def test_clients_ask_while_the_cluster_recovers(bed):
    """A node that stays slow says nothing of the others: it is whether clients are served that counts."""
    run, directory = bed.prepared(time_limit=0.1, recovery_timeout=0.5)
    asked = asyncio.Event()

    async def attempted() -> None:
        if "lost_hosts" in bed.steps:  # the clients' phase is over
            asked.set()

    async def one_stays_slow() -> bool:
        if "lost_hosts" in bed.steps:
            async with asyncio.timeout(20):
                await asked.wait()
            return False
        return True

    bed.hooks |= {"attempt": attempted, "wait_ready": one_stays_slow}
    assert await run.execute() == "ended"
    begins = {event.message: event.time for event in directory.events() if event.kind == "phase"}
    served = [op for op in directory.history() if op.type == "ok"]
    assert any(begins["recovery"] <= op.time <= begins["final-reads"] for op in served)
    assert is_well_formed(directory)


async def test_a_schedule_that_breaks_ends_the_clients_phase_and_is_told_as_it_is(bed, monkeypatch):
    async def broken(*arguments):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("raftbed.faults.nemesis.Nemesis._execute", broken)
    run, directory = bed.prepared(schedule=(cut(),))
    with pytest.raises(ZeroDivisionError, match="a defect"):
        await run.execute()
    assert "final-reads" in phases(directory)


# -- stopped by its user --------------------------------------------------------------------------------------------


async def test_a_run_that_is_stopped_once_heals_and_reads_and_is_interrupted(bed):
    run, directory = bed.prepared(schedule=(cut(),))

    async def stop_soon() -> None:
        if bed.steps.count("attempt") == 5:
            bed.stop.interrupt()

    bed.hooks["attempt"] = stop_soon
    assert await run.execute() == "interrupted"
    assert phases(directory) == [
        "hosts", "deploy", "start", "clients", "heal", "recovery", "final-reads", "collect", "ended",
    ]  # fmt: skip
    assert directory.manifest().state == "interrupted"
    assert not said(directory, "error")


@pytest.mark.parametrize(
    ("step", "last"),
    [
        ("attempt", "clients"),  # no operation has ended yet
        ("lost_hosts", "heal"),  # a host hangs
        ("restart_dead nodes", "recovery"),
        ("stop nodes", "collect"),
        ("collect", "collect"),
    ],
)
async def test_a_run_that_is_stopped_at_once_waits_for_nothing_and_is_no_failure(bed, step, last):
    run, directory = bed.prepared(schedule=(cut(0.0, 0.02),), time_limit=60.0 if step == "attempt" else 0.05)
    bed.hooks[step] = bed.twice
    assert await run.execute() == "interrupted"
    assert phases(directory)[-2:] == [last, "ended"]
    assert bed.steps[-2:] == ["close connections", "close"]
    assert directory.manifest().state == "interrupted"
    assert not said(directory, "error")
    assert said(directory, "warning") == [f"Stopped at once by the user in phase {last}: what follows it is missing."]


async def test_a_heal_that_hangs_is_not_waited_for_at_the_second_interrupt(bed, monkeypatch):
    async def stop_soon() -> None:
        if bed.steps.count("attempt") == 5:
            bed.stop.interrupt()

    async def hang(step):
        bed.stop.interrupt()
        await asyncio.Event().wait()

    monkeypatch.setattr(bed.fault, "heal", hang)
    bed.hooks["attempt"] = stop_soon
    run, directory = bed.prepared(schedule=(cut(),))
    assert await run.execute() == "interrupted"
    assert phases(directory)[-2:] == ["heal", "ended"]
    assert not said(directory, "error")


@pytest.mark.parametrize("step", ["hosts", "preflight", "install nodes", "start nodes", "prepare"])
async def test_a_run_that_is_stopped_before_its_clients_says_so_and_takes_everything_down(bed, step):
    async def once() -> None:
        bed.stop.interrupt()
        await asyncio.Event().wait()

    bed.hooks[step] = once
    run, directory = bed.prepared()
    with pytest.raises(Interrupted, match="before the clients had started"):
        await run.execute()
    assert directory.manifest().state == "interrupted"
    assert bed.steps[-1] == "close"
    assert not said(directory, "error")


async def test_what_failed_before_the_user_lost_patience_is_told(bed):
    run, directory = bed.prepared()
    bed.hooks["lost_hosts"] = bed.twice

    async def fill() -> None:
        bed.full.add("history.jsonl")

    bed.hooks["attempt"] = fill
    with pytest.raises(StoreError, match="No space left"):
        await run.execute()
    assert directory.manifest().state == "failed"


@pytest.mark.parametrize(
    ("hosts", "keep", "killed"),
    [("local", False, False), ("a@h1,a@h2,a@h3", False, True), ("a@h1,a@h2,a@h3", True, False)],
)
async def test_nodes_on_hosts_of_the_user_are_killed_where_the_run_stops_at_once(bed, hosts, keep, killed):
    async def one_is_left() -> list[str]:
        return ["n2"]

    run, _ = bed.prepared(hosts=hosts, keep=keep)
    bed.hooks |= {"attempt": bed.twice, "kill": one_is_left}
    assert await run.execute() == "interrupted"
    assert ("kill" in bed.steps) is killed
    assert list(run.running_on) == (["n2"] if killed else [])


async def test_which_nodes_are_not_proved_dead(monkeypatch):
    async def kill(node):
        if node == "n2":
            raise HostError("is down.", host=node)
        if node == "n3":
            await asyncio.Event().wait()

    pool: Any = SimpleNamespace(hosts={}, socket_factory=None)
    system = RaftSystem(pool, make_plan_for_tests())
    monkeypatch.setattr(system.control, "kill", kill)
    assert await system.kill(timeout=0.05) == ["n2", "n3"]


# -- hosts that are kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "step", "kept"),
    [
        ("local", "hosts", False),  # what never came up is not kept
        ("local", "preflight", True),
        ("local", "start nodes", True),
        ("a@h1,a@h2,a@h3", "preflight", False),  # what runs there is not ours
        ("a@h1,a@h2,a@h3", "start nodes", True),
    ],
)
async def test_a_run_that_fails_knows_whether_it_keeps_hosts(bed, hosts, step, kept):
    async def fail() -> None:
        raise HostError("it is too warm.", host="n1")

    bed.hooks[step] = fail
    run, _ = bed.prepared(hosts=hosts, keep=True)
    with pytest.raises(HostError, match="too warm"):
        await run.execute()
    assert run.keeps_hosts is kept
    assert bed.steps[-1] == ("close, keeping" if kept else "close")


async def test_an_error_of_this_machine_is_not_taken_for_one_of_the_store(bed):
    async def fail() -> None:
        raise PermissionError(13, "Permission denied", "/run/user/1000/raftbed")

    bed.hooks["hosts"] = fail
    run, directory = bed.prepared()
    with pytest.raises(RaftbedError, match=r"The run could not go on: .*Permission denied: '/run/user/1000/raft"):
        await run.execute()
    assert said(directory, "error")
