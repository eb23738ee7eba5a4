"""The part of `Raft` that operators, and whoever sets a cluster up, use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from raftbed.nodes.raft.driver import Driver
from raftbed.nodes.raft.events import (
    AddNonVoter,
    ChangeMembership,
    Compact,
    Elect,
    Heartbeat,
    Initialize,
    RemoveNonVoter,
    TransferLeadership,
)
from raftbed.nodes.raft.messages import NodeId, SnapshotMeta
from raftbed.nodes.raft.progress import Rate


def checked_id(what: str, id: object) -> NodeId:
    """A node's name, of which `what` says whose.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(id, str):
        raise TypeError(f"{what}: the id of a node is text, such as 'n1', not {id!r}.")
    return id


def checked_ids(what: str, ids: Iterable[object]) -> tuple[NodeId, ...]:
    """The names of nodes.

    Raises:
        TypeError: they are one text, whose letters would be taken for nodes; or one of them is no text.
    """
    if isinstance(ids, str):
        raise TypeError(f"{what}: must be the ids of nodes, such as {{{ids!r}}}, not the text {ids!r}.")
    return tuple(checked_id(what, id) for id in ids)


class Operators:
    """Base of :class:`raftbed.nodes.raft.Raft`."""

    _driver: Driver

    async def initialize(self, members: Iterable[NodeId], addresses: Mapping[NodeId, str] | None = None) -> None:
        """Make this pristine node and `members` a cluster. Race-free when every member calls it.

        Parameters:
            members: the voters; this node is one of them in any case.
            addresses: where they are found, for nodes that join later.

        Raises:
            TypeError: `members` is one text, or there is one among them that is none; nothing was done.
            InitializeNotAllowed: the node is not pristine.
            ShuttingDown: the node is.
        """
        voters, known = checked_ids("members", members), dict(addresses or {})
        await self._driver.ask(lambda token: Initialize(token, voters, known))

    async def add_non_voter(self, id: NodeId, address: str | None = None) -> None:
        """Have node `id` sent the log; returns once it is at line rate, that is, ready to become a voter.

        Raises:
            TypeError: `id` is no text.
            NodeNotLeader: only the leader can.
            Noop: the node is a voter, or a non-voter with this address, already.
            ConfigChangeInProgress: the voters are being changed. The address of a node that this change waits for can
                be corrected all the same.
            ConfigChangeUnknown: this node was deposed meanwhile.
            ShuttingDown: the node is.
        """
        node = checked_id("id", id)
        await self._driver.ask(lambda token: AddNonVoter(token, node, address))

    async def remove_non_voter(self, id: NodeId) -> None:
        """Send node `id`, which is no voter, the log no more; returns when that is committed.

        A change of the voters that still waits for this node is given up by it.

        Raises:
            NodeNotLeader: only the leader can.
            Noop: the node is no non-voter.
            ConfigChangeInProgress: the voters are being changed.
            ConfigChangeUnknown: this node was deposed meanwhile.
            ShuttingDown: the node is.
        """
        await self._driver.ask(lambda token: RemoveNonVoter(token, id))

    async def change_membership(self, members: Iterable[NodeId], addresses: Mapping[NodeId, str] | None = None) -> None:
        """Make `members` the voters, by joint consensus; returns once they are, and the change is committed.

        Nodes that the cluster does not know are brought up as non-voters first, however long that takes: whoever gives
        up on this call does not end the change. As long as it waits for them, it is taken back by asking for the voters
        that there are, or by removing a node that it waits for. A leader that is not among `members` leads until the
        change is committed.

        Raises:
            TypeError: `members` is one text, or there is one among them that is none; nothing was done.
            NodeNotLeader: only the leader can.
            InoperableConfig: there is nobody among `members`.
            Noop: they are the voters already.
            ConfigChangeInProgress: another change is under way.
            ConfigChangeAbandoned: an operator took it back; the voters are what they were.
            ConfigChangeUnknown: this node was deposed meanwhile.
            ShuttingDown: the node is.
        """
        wanted, known = checked_ids("members", members), dict(addresses or {})
        await self._driver.ask(lambda token: ChangeMembership(token, wanted, known))

    async def transfer_leadership(self, target: NodeId | None = None) -> None:
        """Hand the leadership to `target`, or to whoever is best prepared; returns once this node does not lead.

        Raises:
            TransferNotLeader: it does not lead.
            TransferRefused: the target is no voter, or another transfer is under way.
            TransferTimedOut: the target did not take over; this node leads on.
            ShuttingDown: the node is.
        """
        await self._driver.ask(lambda token: TransferLeadership(token, target))

    async def trigger_snapshot(self) -> SnapshotMeta:
        """Take a snapshot now, and return what it is; the one that there is, if nothing was applied since.

        Raises:
            SnapshotError: it could not be taken; the node goes on.
            ShuttingDown: the node is.
        """
        snapshot: SnapshotMeta = await self._driver.ask(Compact)
        return snapshot

    def trigger_election(self) -> None:
        """Stand for election now. Peers that hear from a leader refuse.

        Raises:
            ShuttingDown: the node is.
        """
        self._driver.tell(Elect())

    def trigger_heartbeat(self) -> None:
        """Let all peers hear from this node now, if it leads.

        Raises:
            ShuttingDown: the node is.
        """
        self._driver.tell(Heartbeat())

    def streams(self) -> Mapping[NodeId, tuple[Rate, int]]:
        """Of a leader: how each peer's stream does, and up to which entry it is known to have the log. Else empty."""
        return self._driver.streams()

    def snapshot(self) -> SnapshotMeta | None:
        """The snapshot that this node has, or had when it shut down."""
        return self._driver.snapshot()
