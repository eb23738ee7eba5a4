"""What operators ask of a node: initialize, change the membership, hand over, take a snapshot, look closer.

Knows no HTTP library: a request is a path and a body, an answer something for JSON, a refusal a `Problem`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

import msgspec

from raftbed.nodes import problems
from raftbed.nodes.addresses import split
from raftbed.nodes.raft import MembershipConfig, NodeId, Raft, RaftMetrics
from raftbed.nodes.requests import decode_body

_T = TypeVar("_T")
Answer = dict[str, Any]
_SUCCESSION = 2.0
"""Seconds that one waits to hear who leads after this node; an election does not take longer."""
PeerProblem = Callable[[NodeId], str | None]
"""Why a peer cannot be reached; None while it can be."""


class InitializeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of an initialization. Addresses are needed of members that this node was not started with."""

    members: list[str]
    addresses: dict[str, str] = {}


class AddNonVoterBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of an addition."""

    id: str
    address: str | None = None


class RemoveNonVoterBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a removal."""

    id: str


class ChangeMembershipBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a change of the voters."""

    members: list[str]
    addresses: dict[str, str] = {}


class TransferBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a transfer; without a target, the node chooses."""

    target: str | None = None


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a request that has nothing to say."""


class Admin:
    """Answers operators.

    Parameters:
        raft: the node's.
        peers: node id to "host:port", as far as this node knows.
        problem: why a peer cannot be reached.
    """

    def __init__(self, raft: Raft, peers: Mapping[str, str], problem: PeerProblem) -> None:
        self._raft = raft
        self._peers = peers
        self._problem = problem
        self.posts: Mapping[str, Callable[[bytes, float], Awaitable[Answer]]] = {
            "/admin/initialize": self._initialize,
            "/admin/add_non_voter": self._add_non_voter,
            "/admin/remove_non_voter": self._remove_non_voter,
            "/admin/change_membership": self._change_membership,
            "/admin/transfer": self._transfer,
            "/admin/snapshot": self._snapshot,
            "/admin/elect": self._elect,
            "/admin/heartbeat": self._heartbeat,
            "/sessions": self._register,
        }

    async def _initialize(self, raw: bytes, patience: float) -> Answer:
        body = decode_body(raw or b"{}", InitializeBody)
        _check_names(body.members)
        addresses = {**self._peers, **body.addresses}
        unknown = sorted(set(body.members) - set(addresses))
        if unknown or self._raft.id not in body.members:
            what = f"{', '.join(unknown)} has no address here" if unknown else f"{self._raft.id} is not among them"
            raise problems.bad_request(f"members: {what}.")
        known = {node: addresses[node] for node in body.members}
        await self._done(patience, self._raft.initialize(set(body.members), known), problems.of_initialize)
        return {"members": sorted(body.members)}

    async def _add_non_voter(self, raw: bytes, patience: float) -> Answer:
        body = decode_body(raw or b"{}", AddNonVoterBody)
        addresses = {} if body.address is None else {body.id: body.address}
        self._check_addresses([body.id], addresses)
        asked = self._raft.add_non_voter(body.id, self._address(body.id, addresses))
        await self._done(patience, asked, self._of_change([body.id]))
        return self._membership()

    async def _remove_non_voter(self, raw: bytes, patience: float) -> Answer:
        body = decode_body(raw or b"{}", RemoveNonVoterBody)
        await self._done(patience, self._raft.remove_non_voter(body.id), problems.of_change)
        return self._membership()

    async def _change_membership(self, raw: bytes, patience: float) -> Answer:
        body = decode_body(raw or b"{}", ChangeMembershipBody)
        self._check_addresses(body.members, body.addresses)
        addresses = {node: self._address(node, body.addresses) for node in body.members}
        known = {node: address for node, address in addresses.items() if address is not None}
        await self._done(patience, self._raft.change_membership(body.members, known), self._of_change(body.members))
        return self._membership()

    async def _transfer(self, raw: bytes, patience: float) -> Answer:
        body = decode_body(raw or b"{}", TransferBody)
        await self._done(patience, self._raft.transfer_leadership(body.target), problems.of_transfer)
        with contextlib.suppress(TimeoutError):  # it is done all the same
            async with asyncio.timeout(_SUCCESSION):
                await self._raft.metrics().wait_for(lambda metrics: metrics.current_leader is not None)
        return {"node": self._raft.id, "leader": self._raft.metrics().current.current_leader}

    async def _snapshot(self, raw: bytes, patience: float) -> Answer:
        decode_body(raw or b"{}", EmptyBody)
        snapshot = await self._done(patience, self._raft.trigger_snapshot(), problems.of_snapshot)
        return {"id": snapshot.id, "index": snapshot.index, "term": snapshot.term, "size": snapshot.size}

    async def _elect(self, raw: bytes, patience: float) -> Answer:
        decode_body(raw or b"{}", EmptyBody)
        self._raft.trigger_election()
        return {"node": self._raft.id}

    async def _heartbeat(self, raw: bytes, patience: float) -> Answer:
        decode_body(raw or b"{}", EmptyBody)
        self._raft.trigger_heartbeat()
        return {"node": self._raft.id}

    async def _register(self, raw: bytes, patience: float) -> Answer:
        decode_body(raw or b"{}", EmptyBody)
        written = await self._done(patience, self._raft.client_write({"op": "register"}), problems.of_write)
        return {"client": written.data.value, "index": written.index, "term": written.term, "node": self._raft.id}

    async def _done(
        self, patience: float, asked: Awaitable[_T], problem: Callable[[str, Exception], problems.Problem | None]
    ) -> _T:
        try:
            async with asyncio.timeout(patience):
                return await asked
        except Exception as error:
            raise problem(self._raft.id, error) or error from error

    def _of_change(self, nodes: Sequence[NodeId]) -> Callable[[str, Exception], problems.Problem | None]:
        """What to answer when a change that needs these nodes ended in an error; names those not reached."""

        def of_change(node: str, error: Exception) -> problems.Problem | None:
            reasons = {other: self._problem(other) for other in nodes if other != node}
            return problems.of_change(node, error, {other: reason for other, reason in reasons.items() if reason})

        return of_change

    def _address(self, node: str, given: Mapping[str, str]) -> str | None:
        replicated = dict(self._raft.metrics().current.membership_config.addresses)
        return given.get(node) or self._peers.get(node) or replicated.get(node)

    def _check_addresses(self, nodes: list[str], given: Mapping[str, str]) -> None:
        _check_names(nodes)
        for node in nodes:
            address = self._address(node, given)
            if address is None:
                raise problems.bad_request(f"{node}: has no address here; give one.")
            if split(address) is None:
                raise problems.bad_request(f"{node}: {address!r} is not an address such as 127.0.0.1:8401.")

    def _membership(self) -> Answer:
        return membership_answer(self._raft.metrics().current.membership_config)


def _check_names(nodes: Sequence[NodeId]) -> None:
    for node in nodes:
        if not node.strip() or not node.isprintable():
            raise problems.bad_request(f"{node!r}: is no name of a node.")


def membership_answer(membership: MembershipConfig) -> Answer:
    """A membership, as answers have it."""
    return {
        "members": membership.members,
        "members_after_consensus": membership.members_after_consensus,
        "non_voters": membership.non_voters,
        "addresses": dict(membership.addresses),
    }


def details(raft: Raft, problem: PeerProblem) -> Answer:
    """What a status says beside the metrics: the snapshot, and of a leader, how each peer is doing."""
    snapshot = raft.snapshot()
    return {
        "snapshot_index": snapshot.index if snapshot else 0,
        "streams": {
            peer: {"state": rate, "match_index": match, "problem": problem(peer)}
            for peer, (rate, match) in raft.streams().items()
        },
    }


def prometheus(metrics: RaftMetrics, answers: Mapping[tuple[str, int], int]) -> str:
    """Metrics as Prometheus reads them; `answers` counts what was answered by route and status."""
    gauges = {
        "raft_term": metrics.current_term,
        "raft_is_leader": int(metrics.state == "leader"),
        "raft_last_log_index": metrics.last_log_index,
        "raft_commit_index": metrics.commit_index,
        "raft_last_applied": metrics.last_applied,
    }
    lines = [line for name, value in gauges.items() for line in (f"# TYPE {name} gauge", f"{name} {value}")]
    lines.append("# TYPE raftbed_http_responses_total counter")
    lines += [
        f'raftbed_http_responses_total{{route="{route}",status="{status}"}} {count}'
        for (route, status), count in sorted(answers.items())
    ]
    return "\n".join(lines) + "\n"


def learner_of_addresses(peers: MutableMapping[str, str]) -> Callable[[MembershipConfig], None]:
    """What to give a `Raft` as `on_membership`: it adds to `peers` the nodes that were not there when it was made.

    Whoever starts a node may move its peers elsewhere; so what it was started with counts more than the membership.
    """
    given = frozenset(peers)

    def learn(membership: MembershipConfig) -> None:
        peers.update((node, address) for node, address in membership.addresses if node not in given)

    return learn
