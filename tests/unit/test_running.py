"""What `raftbed run` does with signals, and what it tells of a run that did not go to its end."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from tests_run import Bed
from tests_support import make_plan_for_tests

from raftbed.console import Console
from raftbed.errors import HostError, StoreError
from raftbed.plan import PlanSettings
from raftbed.running import RunRequest, _interrupts, run_once
from raftbed.stopping import StopSignal


@pytest.fixture
def bed(monkeypatch, tmp_path) -> Bed:
    return Bed(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("sent", "urgent"),
    [
        ([signal.SIGINT], False),
        ([signal.SIGTERM], False),
        ([signal.SIGHUP], False),
        ([signal.SIGINT, signal.SIGINT], True),
        ([signal.SIGHUP, signal.SIGTERM], True),
        ([signal.SIGHUP, signal.SIGHUP], False),  # what a shell and the kernel send of one closed terminal
        ([signal.SIGINT, signal.SIGHUP], False),
    ],
)
async def test_which_signals_stop_a_run(sent, urgent):
    stop, taken = StopSignal(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, taken.set)
    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with _interrupts(stop.interrupt, Console(quiet=True)):
            for number in (*sent, signal.SIGUSR1):  # signals are taken in the order in which they came
                os.kill(os.getpid(), number)
            await taken.wait()
        assert stop.requested.is_set()
        assert stop.urgent.is_set() is urgent
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_run_that_is_to_outlive_its_terminal_does():
    stop = StopSignal()
    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with _interrupts(stop.interrupt, Console(quiet=True)):
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def run(bed: Bed, tmp_path: Any, *, keep: bool = False, **changes: Any) -> str:
    """Run a plan as the command does; how it ended."""
    plan = make_plan_for_tests(**{"time_limit": 60.0, "rate": 0.0, "concurrency": 2, **changes})
    request = RunRequest(PlanSettings(test="smoke-test"), store=tmp_path / "a store", keep=keep)
    return run_once(plan, request, Console())[1]


@pytest.fixture
def stopped_at_once(monkeypatch, bed):
    """The user's patience ends with the first operation."""

    def stop() -> StopSignal:
        bed.stop = StopSignal()
        return bed.stop

    monkeypatch.setattr("raftbed.running.StopSignal", stop)
    bed.hooks["attempt"] = bed.twice


def test_a_run_that_fails_tells_which_hosts_it_keeps(bed, tmp_path, capsys):
    async def fail() -> None:
        raise HostError("it is too warm.", host="n1")

    bed.hooks["start nodes"] = fail
    with pytest.raises(HostError, match="too warm"):
        run(bed, tmp_path, keep=True)
    told = capsys.readouterr().err
    assert "The hosts are still up. Look at their nodes with: raftbed cluster status\n" in told
    assert f"Remove them with: raftbed clean --store '{tmp_path}/a store'\n" in told


def test_a_run_that_fails_and_keeps_nothing_says_nothing_of_it(bed, tmp_path, capsys):
    async def fail() -> None:
        raise HostError("it is too warm.", host="n1")

    bed.hooks["start nodes"] = fail
    with pytest.raises(HostError, match="too warm"):
        run(bed, tmp_path)
    assert "still" not in capsys.readouterr().err


@pytest.mark.usefixtures("stopped_at_once")
def test_a_run_that_was_stopped_at_once_is_checked_and_tells_what_may_still_run(bed, tmp_path, capsys):
    async def two_are_left() -> list[str]:
        return ["n1", "n3"]

    bed.hooks["kill"] = two_are_left
    assert run(bed, tmp_path, hosts="a@h1,a@h2,a@h3") == "interrupted"
    told = capsys.readouterr()
    assert "UNKNOWN" in told.out and "report: " in told.out
    assert "Nodes may still run on n1, n3. End them with: raftbed cluster clean --hosts a@h1,a@h2,a@h3" in told.err


def test_what_a_run_recorded_before_the_disk_was_full_is_checked_and_its_report_named(bed, tmp_path, capsys):
    async def fill() -> None:
        if bed.steps.count("attempt") == 10:
            bed.full.add("status.jsonl")

    bed.hooks["attempt"] = fill
    with pytest.raises(StoreError, match="No space left"):
        run(bed, tmp_path)
    assert "report: " in capsys.readouterr().out


def test_why_a_run_ended_is_raised_also_where_the_check_of_what_it_recorded_fails(bed, tmp_path, capsys, monkeypatch):
    async def fill() -> None:
        if bed.steps.count("attempt") == 10:
            bed.full.add("history.jsonl")

    def refuse(directory, **options):
        raise StoreError("plan.json: cannot be read: Input/output error.")

    bed.hooks["attempt"] = fill
    monkeypatch.setattr("raftbed.running.check_run", refuse)
    with pytest.raises(StoreError, match=r"/smoke-test/[^/]*: cannot be written: No space left"):
        run(bed, tmp_path, keep=True)
    told = capsys.readouterr().err
    assert "What was recorded could not be checked: plan.json: cannot be read" in told
    assert "The hosts are still up." in told
