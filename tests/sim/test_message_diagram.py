"""The message diagram tells a small simulated run step by step, cause before effect: of cores, and of whole nodes."""

from __future__ import annotations

import pytest
from sim_support import plan_of, step

from raftbed.analysis.report import messages
from raftbed.analysis.report.view import gather
from raftbed.sim.child import run
from raftbed.sim.simulation import Call
from raftbed.store import Store
from raftbed.workloads.base import Request


@pytest.fixture(scope="module", params=["simulated", "simulated-real-nodes"])
def view(request, tmp_path_factory):
    """One write while the leader of three is cut off from one follower."""
    schedule = [step("partition", "followers-minority", 0.2, 1.0, nodes=3)]
    plan = plan_of("partition-test", hosts=request.param, nodes=3, time_limit=1.5, schedule=schedule)
    script = [Call(0.4, 0, Request("write", "r0", 7)), Call(None, 0, Request("read", "r0"))]
    directory = Store(tmp_path_factory.mktemp("store")).new_run("partition-test")
    run(plan, script, messages=True).write(directory, command="", started="")
    return gather(directory)


def test_steps_come_in_order_and_heartbeats_are_left_out(view):
    steps = messages.steps(view)
    assert [step.time for step in steps] == sorted(step.time for step in steps)
    assert not [step for step in steps if "heartbeat" in step.text]


def test_a_write_is_told_from_the_client_to_the_commit(view):
    texts = [step.text for step in messages.steps(view)]
    asked = next(place for place, text in enumerate(texts) if text.endswith("write r0 7 is asked"))
    story = texts[asked:]
    wanted = ["to n", "has synced up to", "answers", "commits up to", "write r0: ok"]
    places = [next(place for place, text in enumerate(story) if word in text) for word in wanted]
    assert places == sorted(places)


def test_what_is_lost_and_what_strikes_is_told(view):
    texts = [step.text for step in messages.steps(view)]
    assert any(text.endswith("(lost)") for text in texts)
    assert any(text.startswith("f01 partition followers-minority strikes") for text in texts)


def test_every_arrival_is_joined_to_its_departure(view):
    steps = messages.steps(view)
    drawn = str(messages.drawing(view, steps))
    sent = {step.message for step in steps if step.kind == "send"}
    arrivals = [step for step in steps if step.kind == "arrive" and step.message in sent]
    assert drawn.count('class="message"') == len(arrivals) > 5


def test_answers_follow_their_requests(view):
    sent = [step.text for step in messages.steps(view) if step.kind == "send"]
    asked = [place for place, text in enumerate(sent) if "entry" in text and "answers" not in text]
    told = [place for place, text in enumerate(sent) if "holds up to" in text]
    assert asked
    assert told
    assert asked[0] < told[0]


def test_without_messages_there_is_no_diagram(tmp_path):
    directory = Store(tmp_path).new_run("smoke-test")
    run(plan_of("smoke-test", time_limit=1.0)).write(directory, command="", started="")
    view = gather(directory)
    assert messages.steps(view) == []
    assert messages.drawing(view, []) is None
