"""Virtual time: what is asked for comes in order, and a node's own clock is an exact straight line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raftbed.sim.clock import NodeClock
from raftbed.sim.timeline import Suspend, Task, Timeline, all_of


def test_events_come_in_order_of_time_and_those_of_one_moment_as_they_were_asked_for():
    timeline, came = Timeline(), []
    for time, name in [(20, "c"), (10, "a"), (20, "d"), (10, "b")]:
        ask = timeline.after if name in "bd" else timeline.at
        ask(time, came.append, name)
    timeline.run(lambda: len(came) == 4, limit=100)
    assert came == ["a", "b", "c", "d"]
    assert timeline.now == 20


def test_a_run_ends_at_its_limit():
    timeline = Timeline()
    timeline.at(200, lambda: None)
    assert not timeline.run(lambda: False, limit=100)
    assert timeline.now == 0


def test_a_run_ends_after_the_event_that_ends_it():
    timeline, came = Timeline(), []
    timeline.at(10, came.append, "first")
    timeline.at(10, timeline.end)
    timeline.at(10, came.append, "too late")
    assert timeline.run(limit=100)
    assert came == ["first"]


def test_a_run_ends_at_its_bound_of_events_and_goes_on_when_that_is_moved():
    timeline, came = Timeline(), []
    for time in range(5):
        timeline.at(time, came.append, time)
    timeline.most = 2
    assert timeline.run(limit=100)
    assert came == [0, 1]
    timeline.most = 4
    assert timeline.run(limit=100)
    assert came == [0, 1, 2, 3]


def test_coroutines_sleep_in_virtual_time_and_wait_for_each_other():
    timeline, came = Timeline(), []

    async def sleeper(name, seconds):
        await timeline.sleep(seconds)
        came.append((name, timeline.now))

    async def both():
        await all_of([sleeper("late", 2.0), sleeper("early", 0.5)])
        came.append(("all", timeline.now))

    task = Task(both())
    timeline.run(lambda: task.done, limit=10**12)
    assert came == [("early", 500_000_000), ("late", 2_000_000_000), ("all", 2_000_000_000)]


def test_who_waits_is_given_what_it_waited_for():
    waiting, got = [], []

    async def waiter():
        got.append(await Suspend(waiting.append))

    task = Task(waiter())
    waiting[0]("answer")
    assert got == ["answer"]
    assert task.done


CHANGES = st.lists(
    st.tuples(st.integers(0, 10**10), st.integers(-200_000, 200_000), st.integers(0, 10**10)), max_size=5
)


@given(offset=st.integers(0, 10**12), changes=CHANGES, ahead=st.integers(0, 10**10))
def test_a_clock_tells_when_it_will_show_a_time_to_the_nanosecond(offset, changes, ahead):
    clock, now = NodeClock(offset), 0
    for passed, ppm, jump in changes:
        now += passed
        before = clock.read(now)
        clock.set_speed(now, ppm)
        assert clock.read(now) == before
        clock.jump(now, jump)
    shown = clock.read(now) + ahead
    when = clock.when(shown)
    assert when >= now
    assert clock.read(when) >= shown
    assert when == now or clock.read(when - 1) < shown
