"""The `bugs` command: one bug after the other, one seed after the other, until a run ends invalid."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftbed import hunting
from raftbed.errors import HostError, UsageError
from raftbed.hunting import HuntRequest
from raftbed.model import Verdict, worst
from raftbed.store import Results, RunDirectory


def hunted(monkeypatch, outcomes, **changes):
    """A hunt for stale-leader-read in which runs end as told; and the plans of those runs."""
    plans = []

    def run_once(plan, request, console):
        plans.append(plan)
        outcome = outcomes[len(plans) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        verdicts = (
            Verdict("statistics", "valid", "", {"ok": 100}),
            Verdict("linearizable", outcome, f"It is {outcome}."),
        )
        results = Results("a run", worst(verdict.validity for verdict in verdicts), verdicts)
        return RunDirectory(Path(f"store/{len(plans)}")), "ended", results, None

    monkeypatch.setattr(hunting, "run_once", run_once)
    told = []
    (hunt,) = hunting.hunt_all(HuntRequest(("stale-leader-read",), Path("store"), **changes), told.append)
    assert told == [hunt]
    return hunt, plans


def test_a_hunt_ends_with_the_first_run_that_ends_invalid(monkeypatch):
    hunt, plans = hunted(monkeypatch, ["valid", "invalid"], first_seed=7)
    assert (hunt.found, hunt.by, hunt.how, hunt.seeds, hunt.operations) == (
        True, ("linearizable",), "It is invalid.", 2, 200
    )  # fmt: skip
    assert [(plan.seed, plan.bug, plan.test) for plan in plans] == [
        (7, "stale-leader-read", "partition-test"),
        (8, "stale-leader-read", "partition-test"),
    ]
    assert hunting.rows([hunt])[1][:3] == ("stale-leader-read", "yes", "2")


def test_unknown_is_not_found(monkeypatch):
    hunt, _ = hunted(monkeypatch, ["valid", "unknown"], seeds=2)
    assert (hunt.found, hunt.seeds, hunting.rows([hunt])[1][1]) == (False, 2, "no")


def test_a_run_that_is_not_possible_ends_the_hunt_and_is_named(monkeypatch):
    hunt, plans = hunted(monkeypatch, [HostError("it is gone.", host="n1")])
    assert (hunt.found, len(plans)) == (False, 1)
    assert "it is gone." in hunting.rows([hunt])[1][-1]


def test_a_bug_brings_the_size_of_cluster_that_it_needs(monkeypatch):
    sizes = []

    def run_once(plan, request, console):
        sizes.append(len(plan.nodes))
        raise HostError("no", host="n1")

    monkeypatch.setattr(hunting, "run_once", run_once)
    hunting.hunt_all(HuntRequest(("quorum-off-by-one",), Path("store")), lambda hunt: None)
    assert sizes == [4]


def test_no_such_bug():
    with pytest.raises(UsageError, match="There is no bug 'nonsense'"):
        hunting.hunt_all(HuntRequest(("nonsense",), Path("store")), lambda hunt: None)
