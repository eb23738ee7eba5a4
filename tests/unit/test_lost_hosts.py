"""A host that is lost in the middle of a run: nobody waits for it longer than need be, and it is told once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from raftbed.model import Plan
from raftbed.plan import PlanSettings, make_plan
from raftbed.run import _once
from raftbed.store import StatusSample
from raftbed.systems.raft import RaftSystem, common_leader

N1 = StatusSample(0, "n1", True, role="leader", term=2, leader="n1", last_log_index=5, last_applied=5)
N2 = StatusSample(0, "n2", True, role="follower", term=2, leader="n1", last_log_index=5, last_applied=5)
SILENT = StatusSample(0, "n3", False)


def follows(leader: str | None, node: str = "n1") -> StatusSample:
    return StatusSample(0, node, True, role="follower", term=3, leader=leader, last_applied=5)


@pytest.mark.parametrize(
    ("samples", "leader"),
    [
        ([N1, N2], "n1"),
        ([N1, N2, SILENT], None),  # it may follow somebody else
        ([follows("n3"), follows("n3", "n2")], "n3"),  # whom nobody asked
        ([follows("n1"), N2], None),  # n1 does not lead
        ([N1, StatusSample(0, "n2", True, role="leader", term=1, leader="n2")], None),
        ([follows(None), follows(None, "n2")], None),
        ([], None),
    ],
)
def test_whom_nodes_agree_on(samples, leader):
    assert common_leader(samples) == leader


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answers", "lost", "ready"),
    [
        ([N1, N2, SILENT], {"n3"}, True),
        ([N1, N2, SILENT], set(), False),  # it may come back: it is waited for
        ([follows("n3"), follows("n3", "n2"), SILENT], {"n3"}, True),
        ([N1, N2, follows("n2", "n3")], {"n3"}, False),  # its node answers, and does not follow yet
    ],
)
async def test_a_lost_host_is_not_waited_for(monkeypatch, answers, lost, ready):
    plan: Plan = make_plan(PlanSettings(test="smoke-test", nodes=3), seed=1)
    pool: Any = SimpleNamespace(hosts={}, socket_factory=None)
    system = RaftSystem(pool, plan)
    by_name = {sample.node: sample for sample in answers}

    async def status(node: str) -> StatusSample:
        return by_name[node]

    monkeypatch.setattr(system, "status", status)
    system._lost = lost
    assert await system.wait_ready(timeout=10.0 if ready else 0.2) is ready


def test_what_could_not_be_healed_on_a_lost_host_is_told_once():
    failures = ["n3: SSH failed (f01).", "n3: SSH failed (f02).", "n1: nft failed.", "n1: nft failed.", "n1: another."]
    assert _once(failures, {"n3"}) == ["n3: SSH failed (f01).", "n1: nft failed.", "n1: another."]
