"""Changes of the membership: non-voters are brought up, then joint consensus (Raft paper, section 6; thesis 4).

Theory of operation
-------------------
A configuration is in force on each node from the moment at which it is appended there, and until it is truncated. Here
is only what a leader does to get from one to the next:

1. New nodes become non-voters, in the log, and are sent it. No quorum changes by that.
2. When these, and a majority of all voters to be, are at line rate, the joint configuration is appended: elections and
   commits need a majority of the old voters and one of the new. A voter that is down already keeps nobody waiting: it
   may be the reason for the change.
3. When it is committed, whoever leads then appends the uniform configuration of the new voters alone.
4. When that is committed, the change is done. A leader that is not in it hands over and steps down.

One change at a time; but while it waits for new nodes, it can be taken back, and the address of such a node corrected:
who mistyped it would wait for ever. And none before an entry of the leader's own term is committed, since only then
does it know that the configuration in force is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from raftbed.nodes.raft.errors import (
    ConfigChangeAbandoned,
    ConfigChangeInProgress,
    InoperableConfig,
    NodeNotLeader,
    Noop,
)
from raftbed.nodes.raft.events import Token
from raftbed.nodes.raft.messages import ConfigChange, MembershipConfig, NodeId, TimeoutNowRequest
from raftbed.nodes.raft.progress import Rate
from raftbed.nodes.raft.snapshots import Snapshots
from raftbed.nodes.raft.state import Change, Join, Leadership


class Memberships(Snapshots):
    """The part of the core that changes who takes part."""

    def add_non_voter_requested(self, token: Token, node: NodeId, address: str | None) -> None:
        """An operator wants a node to be sent the log."""
        leadership, membership = self.leadership, self.membership
        if leadership is None:
            self.respond(token, NodeNotLeader(self.leader_id))
        elif membership.is_voter(node) or (
            node in membership.non_voters and address in (None, dict(membership.addresses).get(node))
        ):
            self.respond(token, Noop(f"{node} is a member or a non-voter already"))
        elif self.are_voters_changing(leadership) or (
            leadership.change is not None and node not in membership.non_voters
        ):
            self.respond(token, ConfigChangeInProgress())
        else:
            addresses = {} if address is None else {node: address}
            self.append_config(membership.with_non_voters([node], addresses))
            leadership.joins.append(Join(token, node, self.log.last_index))

    def remove_non_voter_requested(self, token: Token, node: NodeId) -> None:
        """An operator wants a non-voter to be forgotten."""
        leadership, membership = self.leadership, self.membership
        if leadership is None:
            self.respond(token, NodeNotLeader(self.leader_id))
        elif node not in membership.non_voters:
            self.respond(token, Noop(f"{node} is no non-voter"))
        elif self.are_voters_changing(leadership):
            self.respond(token, ConfigChangeInProgress())
        else:
            if leadership.change is not None and node in leadership.change.members:
                self.abandon_change(leadership, f"{node} was removed again")
            for join in leadership.joins:
                if join.node == node and not join.leaving:
                    self.respond(join.token, Noop(f"{node} was removed again"))
            leadership.joins = [join for join in leadership.joins if join.node != node or join.leaving]
            self.append_config(membership.without_non_voter(node))
            leadership.joins.append(Join(token, node, self.log.last_index, leaving=True))

    def change_requested(self, token: Token, members: tuple[NodeId, ...], addresses: Mapping[NodeId, str]) -> None:
        """An operator wants other voters."""
        leadership, membership = self.leadership, self.membership
        wanted = tuple(sorted(set(members)))
        if leadership is None:
            self.respond(token, NodeNotLeader(self.leader_id))
        elif not wanted:
            self.respond(token, InoperableConfig())
        elif self.are_voters_changing(leadership) or (leadership.change is not None and wanted != membership.members):
            self.respond(token, ConfigChangeInProgress())
        elif leadership.change is not None:
            self.abandon_change(leadership, "it was taken back")
            self.respond(token, None)
        elif wanted == membership.members:
            self.respond(token, Noop())
        else:
            unknown = set(wanted) - set(membership.nodes())
            if unknown:
                self.append_config(membership.with_non_voters(unknown, addresses))
            leadership.change = Change(token, wanted)

    def are_voters_changing(self, leadership: Leadership) -> bool:
        """A change of the voters has come so far that it cannot be taken back."""
        change = leadership.change
        return self.membership.is_joint or (change is not None and change.begun)

    def abandon_change(self, leadership: Leadership, reason: str) -> None:
        """Forget a change that waits for new nodes. They stay non-voters."""
        change = leadership.change
        assert change is not None and not change.begun
        leadership.change = None
        self.respond(change.token, ConfigChangeAbandoned(f"{reason}; the voters are what they were"))

    def append_config(self, membership: MembershipConfig) -> None:
        """Append a configuration, which is in force at once."""
        self.append_as_leader(ConfigChange(membership))
        self.streams_follow_membership(next_index=self.log.last_index)

    def drive_membership(self) -> None:
        """Do the next step of a change, if it may be done."""
        leadership = self.leadership
        if leadership is None:
            return
        membership = self.membership
        if leadership.joins:
            self._settle_joins(leadership)
        if leadership.change is None and not membership.is_joint and membership.is_voter(self.id):
            return
        if self.log.membership_index > self.commit_index or self.commit_index < leadership.first_own_index:
            return
        change = leadership.change
        if membership.is_joint:
            self.append_config(membership.uniform())
        elif change is not None and not change.begun:
            if self.are_ready(leadership, change.members):
                change.begun = True
                self.append_config(membership.joint(change.members))
        else:
            if change is not None:
                leadership.change = None
                self.respond(change.token, None)
            if not membership.is_voter(self.id):
                self._leave(leadership)

    def are_ready(self, leadership: Leadership, members: Collection[NodeId]) -> bool:
        """They can take over: those that are new have everything, and so has a majority."""
        ready = [node for node in members if self.is_at_line_rate(leadership, node)]
        new = [node for node in members if not self.membership.is_voter(node)]
        return 2 * len(ready) > len(members) and set(new) <= set(ready)

    def is_at_line_rate(self, leadership: Leadership, node: NodeId) -> bool:
        """The node has, but for what is on its way, everything."""
        if node == self.id:
            return True
        progress = leadership.progress.get(node)
        line = self.config.max_payload_entries
        return progress is not None and progress.rate(self.log.last_index, line) is Rate.LINE_RATE

    def _settle_joins(self, leadership: Leadership) -> None:
        waiting = []
        for join in leadership.joins:
            settled = join.leaving or self.is_at_line_rate(leadership, join.node)
            if settled and join.index <= self.commit_index:
                self.respond(join.token, None)
            else:
                waiting.append(join)
        leadership.joins = waiting

    def _leave(self, leadership: Leadership) -> None:
        """The configuration without this leader is committed: it is done, and need not be waited for."""
        voters = [node for node in self.membership.voters() if node in leadership.progress]
        if voters:
            heir = max(voters, key=lambda node: leadership.progress[node].match_index)
            self.send_heartbeats()  # with the commit index
            self.send(heir, "timeout_now", TimeoutNowRequest(self.term, self.id))
        self.become_follower(self.term, None)
