"""Futures that are given up at about their deadlines."""

from __future__ import annotations

import asyncio

import pytest

from raftbed.nodes.deadlines import Deadlines


async def test_a_future_that_is_not_done_in_time_fails_and_no_earlier_than_that():
    loop = asyncio.get_running_loop()
    deadlines, future, began = Deadlines(loop), loop.create_future(), loop.time()
    deadlines.set(future, 0.05)
    with pytest.raises(TimeoutError):
        await future
    assert loop.time() >= began + 0.05


async def test_each_has_its_own_deadline():
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    late, early = loop.create_future(), loop.create_future()
    deadlines.set(late, 60)
    deadlines.set(early, 0.01)
    with pytest.raises(TimeoutError):
        await early
    assert not late.done()


async def test_what_is_done_is_left_alone_and_forgotten():
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    futures = [loop.create_future() for _ in range(100)]
    steps = [deadlines.set(future, 0.01 + number) for number, future in enumerate(futures)]
    for future, step in zip(futures, steps, strict=True):
        future.set_result("done")
        deadlines.clear(future, step)
    assert not deadlines._due
    deadlines.clear(futures[0], steps[0])  # twice is no harm


async def test_one_timer_serves_many():
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    futures = [loop.create_future() for _ in range(1000)]
    for future in futures:
        deadlines.set(future, 0.02)
    assert len(deadlines._due) < 50
    outcomes = await asyncio.gather(*futures, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {TimeoutError}
