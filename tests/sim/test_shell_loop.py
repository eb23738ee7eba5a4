"""The event loop of one process in virtual time."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from shell_support import World

from raftbed.sim.clock import NodeClock
from raftbed.sim.shell.loop import Deadlock


def test_an_hour_takes_no_time():
    loop, before = World().a, time.monotonic()
    loop.run_until_complete(asyncio.sleep(3600), limit=4000)
    assert 3600 <= loop.time() < 3600.1
    assert time.monotonic() - before < 60


def test_what_is_ready_runs_in_order_and_timers_by_their_time():
    loop, done = World().a, []

    async def main() -> None:
        here = asyncio.get_running_loop()
        assert here is loop
        for name, delay in (("late", 0.02), ("early", 0.01), ("never", 0.015)):
            handle = here.call_later(delay, done.append, name)
            if name == "never":
                handle.cancel()
        here.call_soon(done.append, "first")
        here.call_soon_threadsafe(done.append, "second")
        await asyncio.sleep(0.03)

    loop.run_until_complete(main())
    assert done == ["first", "second", "early", "late"]


def test_a_machine_counts_seconds_by_its_own_clock():
    world = World()
    loop = world.process("a", NodeClock(offset=7 * 10**9, ppm=100_000))
    assert loop.time() == 7.0
    loop.run_until_complete(asyncio.sleep(1.1))
    assert 1.0 < world.timeline.now / 1e9 < 1.01


def test_a_paused_process_catches_up_when_it_goes_on():
    world, done = World(), []
    world.a.call_later(0.5, done.append, "due meanwhile")
    world.pass_time(0.1)
    world.a.call_soon(done.append, "ready before")
    world.a.pause()
    world.pass_time(5)
    assert done == []
    world.a.resume()
    world.pass_time(0.1)
    assert done == ["ready before", "due meanwhile"]


def test_a_killed_process_runs_no_finally():
    world, done = World(), []

    async def main() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            done.append("finally")

    world.a.create_task(main())
    world.pass_time(0.5)
    world.a.call_soon(done.append, "ready before")
    world.a.retire()
    world.a.call_soon(done.append, "later")
    world.pass_time(5)
    assert done == []
    world.a.dispose()  # Python runs it all the same, but nobody looks any more
    assert done == ["finally"]


def test_a_deadlock_is_an_error_that_names_what_waits():
    world = World()

    async def waits_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Deadlock, match="waits_for_ever"):
        world.a.run_until_complete(waits_for_ever())


def test_there_are_no_threads():
    async def main() -> None:
        await asyncio.to_thread(time.sleep, 1)

    with pytest.raises(Deadlock, match="thread"):
        World().a.run_until_complete(main())


def test_signals_reach_the_process_that_handles_them():
    world, done = World(), []
    assert not world.a.raise_signal(signal.SIGTERM)
    world.a.add_signal_handler(signal.SIGTERM, done.append, "terminated")
    assert world.a.raise_signal(signal.SIGTERM)
    world.pass_time(0.1)
    assert done == ["terminated"]


def test_sets_of_futures_have_an_order():
    loop = World().a
    futures = [loop.create_future() for _ in range(50)]
    assert list(set(futures)) == futures
