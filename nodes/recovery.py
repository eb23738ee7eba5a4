"""Offline recovery: a node whose cluster lost its majority for good is given a membership that it can work with.

The new membership is appended to the log, in a term of its own, as if a leader had done it. It is in force as soon as
the node starts, and committed when its members elect a leader. Whatever the log holds before it, committed or not, is
committed with it: nobody is left who could tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from raftbed.nodes.raft.log import Log
from raftbed.nodes.raft.messages import ConfigChange, Entry, HardState, MembershipConfig
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.storage import InitialState, NodeStorage, open_storage


def _open(data: Path) -> NodeStorage:
    return open_storage(data, KeyValueStateMachine())


def _log_of(stored: InitialState) -> Log:
    return Log(stored.entries, stored.base, stored.snapshot.membership if stored.snapshot else None)


def inspect(data: Path) -> str:
    """What a node that does not run has, in one line.

    Raises:
        StorageError: the data cannot be trusted, or the node runs.
    """
    with closing(_open(data)) as storage:
        stored = storage.get_initial_state()
        log = _log_of(stored)
        membership = log.membership() or MembershipConfig(())
        return (
            f"term {stored.hard_state.current_term}, last entry {log.last_index} of term {log.last_term}, voters "
            f"{', '.join(membership.voters()) or 'none'}"
        )


def append_membership(data: Path, members: Sequence[str], addresses: Mapping[str, str]) -> str:
    """Make `members` the voters of the node in `data`, which does not run; what was done, in one line.

    Raises:
        StorageError: the data cannot be trusted, or the node runs.
        ValueError: there are no members, or there is no log.
    """
    if not members:
        raise ValueError("a cluster needs at least one voter.")
    with closing(_open(data)) as storage:
        stored = storage.get_initial_state()
        log = _log_of(stored)
        if not log.last_index:
            raise ValueError(f"{data}: its log is empty: there is nothing to recover.")
        known = {**dict((log.membership() or MembershipConfig(())).addresses), **addresses}
        voters = tuple(sorted(set(members)))
        membership = MembershipConfig(voters, addresses=tuple((node, known[node]) for node in voters if node in known))
        term = stored.hard_state.current_term + 1
        entry = Entry(log.last_index + 1, term, ConfigChange(membership))
        storage.persist(HardState(term, None), None, (entry,))
    return f"{data}: the voters are {', '.join(voters)} from entry {entry.index}, in term {term}."
