"""What every store must do; the same tests run on each implementation.

The names in the headings are the methods of async-raft's `RaftStorage` whose duty is tested: some of them are one
method here (docs/node.md).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from in_process import ListMachine

from raftbed.nodes.raft import Blank, ConfigChange, Entry, HardState, MembershipConfig, Normal
from raftbed.nodes.raft.log import Log
from raftbed.nodes.storage import DiskLogStore, LogStore, MemoryStore, NodeStorage

Reopen = Callable[[], LogStore]
"""Opens the store that the test works on; each call after the first is a restart of the node."""


@pytest.fixture(params=["memory", "disk", "disk with small segments"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    if request.param == "memory":
        store = MemoryStore()
        return lambda: store
    segment_size = 100 if "small" in request.param else 1 << 20
    opened: list[DiskLogStore] = []

    def open_again() -> DiskLogStore:
        for before in opened:
            before.close()
        opened.append(DiskLogStore(tmp_path, segment_size=segment_size))
        return opened[-1]

    request.addfinalizer(lambda: [store.close() for store in opened])
    return open_again


def entries(first: int, last: int, term: int = 1) -> tuple[Entry, ...]:
    return tuple(Entry(index, term, Normal({"n": index})) for index in range(first, last + 1))


def stored(store: LogStore) -> tuple[HardState, tuple[Entry, ...]]:
    state = store.get_initial_state()
    return state.hard_state, tuple(state.entries)


# -- get_initial_state ------------------------------------------------------------------------------------------------


def test_a_new_store_is_pristine(reopen):
    assert stored(reopen()) == (HardState(0, None), ())
    assert stored(reopen()) == (HardState(0, None), ())


def test_everything_comes_back(reopen):
    store = reopen()
    store.get_initial_state()
    store.persist(HardState(2, "n3"), None, entries(1, 3, term=2))
    assert stored(reopen()) == (HardState(2, "n3"), entries(1, 3, term=2))


# -- save_hard_state --------------------------------------------------------------------------------------------------


def test_the_latest_term_and_vote_count(reopen):
    store = reopen()
    store.get_initial_state()
    for state in (HardState(1, "n1"), HardState(2, None), HardState(2, "n2")):
        store.persist(state, None, ())
    assert stored(reopen()) == (HardState(2, "n2"), ())


def test_a_vote_can_be_for_nobody_again(reopen):
    store = reopen()
    store.get_initial_state()
    store.persist(HardState(1, "n1"), None, ())
    store.persist(HardState(2, None), None, ())
    assert stored(reopen())[0] == HardState(2, None)


def test_entries_leave_the_vote_alone(reopen):
    store = reopen()
    store.get_initial_state()
    store.persist(HardState(1, "n1"), None, ())
    store.persist(None, None, entries(1, 2))
    assert stored(reopen()) == (HardState(1, "n1"), entries(1, 2))


# -- append_entry_to_log, replicate_to_log ----------------------------------------------------------------------------


def test_entries_come_back_as_they_were(reopen):
    kinds = (
        Entry(1, 1, ConfigChange(MembershipConfig(("n1", "n2"), ("n2", "n3")))),
        Entry(2, 1, Blank()),
        Entry(3, 2, Normal({"key": "ключ", "value": [None, True, -1, 1.5, {"a": []}], "client": "c", "serial": 1})),
        Entry(4, 2, Normal(b"\x00\xff" * 1000)),
    )
    store = reopen()
    store.get_initial_state()
    store.persist(None, None, kinds[:1])
    store.persist(None, None, kinds[1:])
    assert stored(reopen())[1] == kinds


def test_one_after_the_other_is_the_same_as_all_at_once(reopen):
    store = reopen()
    store.get_initial_state()
    for entry in entries(1, 20):
        store.persist(None, None, (entry,))
    assert stored(reopen())[1] == entries(1, 20)


# -- delete_logs_from -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", [1, 2, 5, 6])
def test_a_truncation_keeps_what_is_before_it(reopen, start):
    store = reopen()
    store.get_initial_state()
    store.persist(HardState(1, "n1"), None, entries(1, 5))
    store.persist(None, start, ())
    assert store.get_log_entries(1, 6) == entries(1, start - 1)
    assert stored(reopen()) == (HardState(1, "n1"), entries(1, start - 1))


def test_truncating_and_appending_is_one_write(reopen):
    store = reopen()
    store.get_initial_state()
    store.persist(HardState(1, "n1"), None, entries(1, 5))
    store.persist(HardState(2, None), 3, entries(3, 4, term=2))
    assert stored(reopen()) == (HardState(2, None), entries(1, 2) + entries(3, 4, term=2))


# -- get_log_entries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("start", "stop", "first", "last"), [(1, 4, 1, 3), (2, 3, 2, 2), (2, 2, 2, 1), (3, 9, 3, 5)])
def test_a_range_of_entries_is_half_open(reopen, start, stop, first, last):
    store = reopen()
    store.get_initial_state()
    store.persist(None, None, entries(1, 5))
    assert store.get_log_entries(start, stop) == entries(first, last)


# -- get_membership_config --------------------------------------------------------------------------------------------


def test_the_membership_is_the_latest_in_the_log(reopen):
    """Memberships are entries; nothing else remembers them, so a truncation takes them back by itself."""
    first, second = MembershipConfig(("n1",)), MembershipConfig(("n1", "n2"))
    store = reopen()
    store.get_initial_state()
    store.persist(None, None, (Entry(1, 1, ConfigChange(first)), Entry(2, 1, ConfigChange(second))))
    assert Log(stored(reopen())[1]).membership() == second
    store = reopen()
    store.get_initial_state()
    store.persist(None, 2, ())
    assert Log(stored(reopen())[1]).membership() == first


# -- apply_entry_to_state_machine, replicate_to_state_machine ---------------------------------------------------------


def test_commands_are_applied_in_order_and_each_entry_has_an_answer(reopen):
    machine = ListMachine()
    storage = NodeStorage(reopen(), machine)
    log = (Entry(1, 1, ConfigChange(MembershipConfig(("n1",)))), *entries(2, 3), Entry(4, 2, Blank()))
    assert storage.apply_to_state_machine(log[:1]) == [None]
    assert storage.apply_to_state_machine(log[1:]) == [1, 2, None]
    assert machine.commands == [{"n": 2}, {"n": 3}]


# -- everything at once -----------------------------------------------------------------------------------------------


def random_write(random: Random, log: list[Entry], term: int) -> tuple[HardState | None, int | None, tuple[Entry, ...]]:
    hard_state = HardState(term, random.choice([None, "n1", "n2"])) if random.random() < 0.4 else None
    truncate_from = random.randint(1, len(log)) if log and random.random() < 0.2 else None
    first = truncate_from or len(log) + 1
    return hard_state, truncate_from, entries(first, first + random.randint(0, 5) - 1, term=term)


@pytest.mark.parametrize("seed", range(5))
def test_random_writes_and_restarts(reopen, seed):
    random = Random(seed)
    hard_state, log = HardState(), []
    store: Any = reopen()
    store.get_initial_state()
    for term in range(1, 60):
        write = random_write(random, log, term)
        store.persist(*write)
        hard_state = write[0] or hard_state
        if write[1] is not None:
            del log[write[1] - 1 :]
        log += write[2]
        if random.random() < 0.2:
            store = reopen()
            assert stored(store) == (hard_state, tuple(log))
        assert store.get_log_entries(1, len(log) + 1) == tuple(log)
