"""Offline recovery: a node whose cluster lost its majority for good is given a membership that it can work with.

The new membership is appended to the log, in a term of its own, as if a leader had done it. It is in force as soon as
the node starts, and committed when its members elect a leader. Whatever the log holds before it, committed or not, is
committed with it: nobody is left who could tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from raftbed.nodes.identity import Identity, identity_of
from raftbed.nodes.raft.log import Log
from raftbed.nodes.raft.messages import ConfigChange, Entry, HardState, MembershipConfig, NodeId
from raftbed.nodes.state_machine import KeyValueStateMachine
from raftbed.nodes.storage import InitialState, NodeStorage, open_storage


def _open(data: Path) -> NodeStorage:
    return open_storage(data, KeyValueStateMachine())


def _log_of(stored: InitialState) -> Log:
    return Log(stored.entries, stored.base, stored.snapshot.membership if stored.snapshot else None)


@dataclass(frozen=True, slots=True)
class Found:
    """What a node that does not run has; as text, in one line.

    Attributes:
        term: that it is in.
        last: index of the last entry of its log.
        last_term: term of that entry.
        membership: the last one in its log.
        identity: whose the directory is; None where nobody has said.
    """

    term: int
    last: int
    last_term: int
    membership: MembershipConfig
    identity: Identity | None

    def __str__(self) -> str:
        voters, non_voters = self.membership.voters(), self.membership.non_voters
        return (
            f"{self.identity or ''}{', ' if self.identity else ''}term {self.term}, last entry {self.last} of term "
            f"{self.last_term}, voters {', '.join(voters) or 'none'}"
            f"{', non-voters ' if non_voters else ''}{', '.join(non_voters)}"
        )

    def check(self, members: Sequence[NodeId], *, force: bool = False) -> None:
        """See to it that `members` can be made the voters.

        Parameters:
            members: who they are to be.
            force: take names that are not in the membership.

        Raises:
            ValueError: they cannot; says why.
        """
        if not members:
            raise ValueError("a cluster needs at least one voter.")
        if not self.last:
            raise ValueError("its log is empty: there is nothing to recover.")
        own = self.identity.id if self.identity is not None else None
        if own is not None and own not in members:
            raise ValueError(
                f"{own}, whose directory this is, must be one of the members: nobody else can start on it."
            )
        strangers = [node for node in members if node not in self.membership.nodes() and node != own]
        if strangers and not force:
            known = ", ".join(self.membership.nodes()) or "nobody"
            raise ValueError(
                f"{', '.join(strangers)}: not in the membership, which has {known}. Start the recovered node and add "
                f"others then; --force names them all the same."
            )


def _found(data: Path, stored: InitialState) -> Found:
    log = _log_of(stored)
    membership = log.membership() or MembershipConfig(())
    return Found(stored.hard_state.current_term, log.last_index, log.last_term, membership, identity_of(data))


def inspect(data: Path) -> Found:
    """What a node that does not run has.

    Raises:
        StorageError: the data cannot be trusted, or the node runs.
    """
    with closing(_open(data)) as storage:
        return _found(data, storage.get_initial_state())


def append_membership(
    data: Path, members: Sequence[NodeId], addresses: Mapping[NodeId, str], *, force: bool = False
) -> str:
    """Make `members` the voters of the node in `data`, which does not run; what was done, in one line.

    Raises:
        StorageError: the data cannot be trusted, or the node runs.
        ValueError: the members cannot be (`Found.check`).
    """
    with closing(_open(data)) as storage:
        found = _found(data, storage.get_initial_state())
        found.check(members, force=force)
        known = {**dict(found.membership.addresses), **addresses}
        voters = tuple(sorted(set(members)))
        membership = MembershipConfig(voters, addresses=tuple((node, known[node]) for node in voters if node in known))
        entry = Entry(found.last + 1, found.term + 1, ConfigChange(membership))
        storage.persist(HardState(entry.term, None), None, (entry,))
    return f"{data}: the voters are {', '.join(voters)} from entry {entry.index}, in term {entry.term}."
