"""The nemesis injects, proves, heals and records, whatever breaks, in virtual time."""

import asyncio

import pytest
from tests_nemesis import NODES, Bench, Clock, Control, FakeFault, cancelled, step

from raftbed.errors import FaultError, HostError
from raftbed.faults.kill import Kill
from raftbed.model import FaultStep


async def test_a_fault_is_injected_proved_and_healed_at_its_times():
    bench = Bench()
    await bench.run(step())
    assert bench.states() == [("f01", "injected", 2.0), ("f01", "proved", 2.0), ("f01", "healed", 4.0)]
    assert bench.ledger[0].nodes == ("n1",)
    assert [(op.process, op.f, op.type) for op in bench.history] == [("nemesis", "partition", "info")] * 3


async def test_faults_that_overlap_go_side_by_side():
    bench = Bench()
    await bench.run(step(until=3.0), step("f02", at=2.5, until=5.0))
    assert [(fault, state) for fault, state, _ in bench.states()] == [
        ("f01", "injected"), ("f01", "proved"), ("f02", "injected"), ("f02", "proved"),
        ("f01", "healed"), ("f02", "healed"),
    ]  # fmt: skip


async def test_shapes_that_aim_at_the_leader_find_it_then():
    bench = Bench()
    await bench.run(step(shape="leader-alone"))
    assert bench.fault.calls[0] == ("inject", "f01", ("n3", "n1", "n2"))
    assert (bench.ledger[0].detail["leader"], bench.ledger[0].detail["term"]) == ("n3", 4)


async def test_without_a_leader_the_planned_order_serves_and_that_is_recorded():
    bench = Bench()
    bench.control.seen = None
    await bench.run(step(shape="leader-alone"))
    assert bench.fault.calls[0] == ("inject", "f01", NODES)
    assert bench.ledger[0].detail["leader"] is None


async def test_where_nobody_leads_any_more_whoever_led_last_is_struck():
    bench = Bench()
    await bench.run(step(shape="leader-alone"))
    bench.control.seen = None
    await bench.run(step("f02", shape="leader-alone"))
    assert bench.fault.calls[2] == ("inject", "f02", ("n3", "n1", "n2"))
    detail = next(event.detail for event in bench.ledger if event.fault == "f02")
    assert (detail["leader"], detail["led_last"]) == (None, "n3")


async def test_a_node_that_was_dead_before_its_kill_is_told():
    control = Control()
    kill, fault = Kill(control), FaultStep("f01", "kill", "one", 0, 1, NODES)
    await control.kill(NODES[0])
    assert (await kill.inject(fault, NODES))["found_dead"] == [NODES[0]]
    await kill.heal(fault)
    again = FaultStep("f02", "kill", "all", 0, 1, NODES)
    overlapping = FaultStep("f03", "kill", "one", 0, 1, NODES)
    assert "found_dead" not in await kill.inject(again, NODES)
    assert "found_dead" not in await kill.inject(overlapping, NODES)  # a kill holds it down: that is no finding
    assert kill.found_dead() == {NODES[0]: "f01"}


async def test_a_fault_that_cannot_be_injected_is_recorded_and_healed_and_the_next_one_goes_on():
    bench = Bench()
    bench.fault.failing = {"inject"}
    await bench.run(step(), step("f02", at=4.0, until=5.0))
    assert [(fault, state) for fault, state, _ in bench.states()] == [
        ("f01", "failed"), ("f01", "healed"), ("f02", "failed"), ("f02", "healed"),
    ]  # fmt: skip
    assert "the wire is hot" in str(bench.ledger[0].detail["error"])


async def test_a_fault_that_did_not_take_is_not_proved():
    bench = Bench()
    bench.fault.failing = {"prove"}
    await bench.run(step())
    assert [state for _, state, _ in bench.states()] == ["injected", "failed", "healed"]


async def test_the_final_heal_tries_again_what_did_not_heal():
    bench = Bench()
    bench.fault.heal_failures = 2
    await bench.run(step())
    assert bench.states()[-1][1] == "failed"
    assert await bench.clock.run(bench.nemesis.heal_all()) == []
    assert bench.states()[-1][1] == "healed"


async def test_what_cannot_be_healed_at_all_is_told():
    bench = Bench()
    bench.fault.heal_failures = 99
    await bench.run(step())
    assert await bench.clock.run(bench.nemesis.heal_all()) == ["still cut."]


async def test_healing_twice_is_harmless():
    bench = Bench()
    await bench.run(step())
    calls = list(bench.fault.calls)
    assert await bench.clock.run(bench.nemesis.heal_all()) == []
    assert bench.fault.calls == calls


async def test_a_run_that_is_stopped_is_healed_by_the_final_heal():
    bench = Bench()
    task = asyncio.ensure_future(bench.clock.run(bench.nemesis.run([step()], start=0)))
    while not bench.ledger:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bench.clock.run(bench.nemesis.heal_all())
    assert bench.states()[-1][:2] == ("f01", "healed")


async def test_a_node_that_two_kills_hold_down_starts_when_the_later_lets_go():
    control = Control()
    kill = Kill(control)
    first, second = (FaultStep(id_, "kill", "one", 0, 1, NODES) for id_ in ("f01", "f02"))
    await kill.inject(first, NODES)
    await kill.inject(second, NODES)
    assert (await kill.heal(first))["left_down"] == ["n1"]
    assert "n1" not in control.running
    await kill.heal(second)
    assert control.running == set(NODES)
    assert kill.held_down() == set()


class SlowFault(FakeFault):
    """A fault whose injection and healing last until the test lets them go."""

    def __init__(self) -> None:
        super().__init__()
        self.may_inject, self.may_heal = asyncio.Event(), asyncio.Event()

    async def inject(self, step, order):
        self.calls.append(("injecting", step.id, ()))
        await self.may_inject.wait()
        return await super().inject(step, order)

    async def heal(self, step):
        self.calls.append(("healing", step.id, ()))
        await self.may_heal.wait()
        return await super().heal(step)

    def said(self):
        return [call for call, _, _ in self.calls]


async def begun(fault, call):
    while call not in fault.said():
        await asyncio.sleep(0)


async def test_healing_does_not_overtake_an_injection_that_was_cut_short():
    bench = Bench(SlowFault())
    task = asyncio.ensure_future(bench.run(step()))
    await begun(bench.fault, "injecting")
    await cancelled(task)
    heal = asyncio.ensure_future(bench.clock.run(bench.nemesis.heal_all()))
    await asyncio.sleep(0.01)
    assert bench.fault.said() == ["injecting"]  # a command that was sent to a host cannot be called back
    bench.fault.may_inject.set()
    bench.fault.may_heal.set()
    assert await heal == []
    assert bench.fault.said() == ["injecting", "inject", "healing", "heal"]
    assert bench.states()[-1][:2] == ("f01", "healed")


async def test_a_heal_that_is_under_way_when_the_run_is_cut_short_ends_once_and_is_recorded():
    bench = Bench(SlowFault())
    bench.fault.may_inject.set()
    task = asyncio.ensure_future(bench.run(step()))
    await begun(bench.fault, "healing")
    await cancelled(task)
    bench.fault.may_heal.set()
    assert await bench.clock.run(bench.nemesis.heal_all()) == []
    assert bench.fault.said().count("heal") == 1
    assert [state for _, state, _ in bench.states()] == ["injected", "proved", "healed"]


async def test_an_error_that_nobody_foresaw_stops_neither_the_schedule_nor_the_healing():
    bench = Bench(BrokenFault())
    await bench.run(step(), step("f02", at=4.0, until=5.0))
    assert [(fault, state) for fault, state, _ in bench.states()] == [
        ("f01", "failed"), ("f01", "healed"), ("f02", "failed"), ("f02", "healed"),
    ]  # fmt: skip
    assert bench.ledger[0].detail["error"] == "KeyError: 'n9'"


class BrokenFault(FakeFault):
    async def inject(self, step, order):
        raise KeyError("n9")


async def test_a_restart_that_failed_is_tried_again_and_the_node_counts_as_held_down():
    class Stubborn(Control):
        refusals = 1

        async def start(self, node):
            if self.refusals:
                self.refusals -= 1
                raise HostError("no room.", host=node)
            return await super().start(node)

    control = Stubborn()
    kill, fault = Kill(control), FaultStep("f01", "kill", "all", 0, 1, NODES)
    await kill.inject(fault, NODES)
    with pytest.raises(HostError, match="no room"):
        await kill.heal(fault)
    assert len(kill.held_down()) == 1
    assert len((await kill.heal(fault))["restarted"]) == 1
    assert control.running == set(NODES)


async def test_two_kills_that_let_go_at_the_same_time_start_the_node_once():
    control = Control()
    kill = Kill(control)
    steps = [FaultStep(id_, "kill", "one", 0, 1, NODES) for id_ in ("f01", "f02")]
    for each in steps:
        await kill.inject(each, NODES)
    healed = await asyncio.gather(*(kill.heal(each) for each in steps))
    assert sorted(len(each["restarted"]) for each in healed) == [0, 1]
    assert control.running == set(NODES)


async def test_a_process_that_survives_its_kill_is_told():
    class Immortal(Control):
        async def kill(self, node):
            return {}

    kill = Kill(Immortal())
    fault = FaultStep("f01", "kill", "one", 0, 1, NODES)
    await kill.inject(fault, NODES)
    with pytest.raises(FaultError, match="n1 still runs after SIGKILL"):
        await kill.prove(fault)


# -- hosts that are slow ----------------------------------------------------------------------------------------------


class Sluggish(FakeFault):
    """A fault on hosts that take their time: seconds for each of injecting, proving and healing."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.clock: Clock | None = None

    async def inject(self, step, order):
        await self.clock.sleep(self.seconds)
        return await super().inject(step, order)

    async def prove(self, step):
        await self.clock.sleep(self.seconds)
        return await super().prove(step)

    async def heal(self, step):
        await self.clock.sleep(self.seconds)
        return await super().heal(step)


def sluggish(seconds: float) -> Bench:
    bench = Bench(Sluggish(seconds))
    bench.fault.clock = bench.clock
    return bench


async def test_what_was_not_meant_to_overlap_does_not_on_slow_hosts_either():
    """A scene waits for the one before, and then for half of the calm that was planned between them."""
    bench = sluggish(4.0)
    await bench.run(step(at=1.0, until=3.0), step("f02", at=5.0, until=6.0))
    assert bench.states() == [
        ("f01", "injected", 6.0), ("f01", "proved", 10.0), ("f01", "healed", 14.0),
        ("f02", "injected", 19.0), ("f02", "proved", 23.0), ("f02", "healed", 27.0),
    ]  # fmt: skip
    assert bench.nemesis.late() == 20.0  # it should have been over at 6 s of the schedule, and was at 26 s


async def test_what_was_meant_to_overlap_still_does():
    bench = sluggish(4.0)
    await bench.run(step(at=1.0, until=3.0), step("f02", at=5.0, until=8.0), step("f03", at=7.5, until=20.0))
    times = {(fault, state): time for fault, state, time in bench.states()}
    assert times["f01", "healed"] == 14.0
    assert times["f02", "injected"] == 14.0 + 1.0 + 4.0
    assert times["f03", "injected"] - times["f02", "injected"] == 2.5
    assert times["f03", "healed"] == 15.0 + 15.0 + 4.0  # it lasts as long as was planned


async def test_a_schedule_catches_up_in_its_calm():
    bench = sluggish(1.0)
    await bench.run(step(at=1.0, until=4.0), step("f02", at=6.0, until=9.0))
    times = {(fault, state): time for fault, state, time in bench.states()}
    assert (
        times["f02", "injected"] == 1.0 + 6.0 + 1.0
    )  # at its planned time: one second late is less than half the calm
    assert bench.nemesis.late() == 1.0


async def test_a_schedule_is_late_while_a_scene_lasts_longer_than_planned():
    bench = sluggish(4.0)
    running = asyncio.ensure_future(bench.run(step(at=1.0, until=3.0)))
    while not any(state == "proved" for _, state, _ in bench.states()):
        await asyncio.sleep(0)
    assert bench.nemesis.late() == 6.0
    await running


async def test_nobody_waits_for_a_schedule_of_which_a_fault_failed():
    bench = sluggish(4.0)
    bench.fault.failing = {"prove"}
    await bench.run(step(at=1.0, until=3.0))
    assert bench.states()[-1] == ("f01", "healed", 14.0)
    assert bench.nemesis.late() == 0.0


async def cut_short_while_injecting(bench):
    """The run ends while the fault is being injected; it goes on, and is healed."""
    task = asyncio.ensure_future(bench.run(step()))
    await begun(bench.fault, "injecting")
    await cancelled(task)
    bench.fault.may_inject.set()
    bench.fault.may_heal.set()
    await bench.clock.run(bench.nemesis.heal_all())
    return bench


async def test_an_injection_under_way_when_the_run_is_cut_short_is_recorded_when_it_happens():
    bench = await cut_short_while_injecting(Bench(SlowFault()))
    assert [state for _, state, _ in bench.states()] == ["injected", "healed"]


async def test_an_injection_that_fails_after_the_run_was_cut_short_is_recorded_too():
    bench = Bench(SlowFault())
    bench.fault.failing = {"inject"}
    await cut_short_while_injecting(bench)
    assert [state for _, state, _ in bench.states()] == ["failed", "healed"]
    assert "the wire is hot" in str(bench.ledger[0].detail["error"])
