"""Leadership transfer: stop proposals, let the target catch up, have it stand at once (Raft thesis, 3.10)."""

from __future__ import annotations

from raftbed.nodes.raft.config import MILLISECOND
from raftbed.nodes.raft.errors import TransferNotLeader, TransferRefused, TransferTimedOut
from raftbed.nodes.raft.events import Token
from raftbed.nodes.raft.messages import NodeId, TimeoutNowRequest, TimeoutNowResponse
from raftbed.nodes.raft.state import CoreState, State, Transfer


class Transfers(CoreState):
    """The part of the core that hands over, and takes over."""

    def transfer_requested(self, token: Token, target: NodeId | None) -> None:
        """An operator wants another leader; without a target, whoever has most of the log and answers."""
        leadership = self.leadership
        if leadership is None:
            self.respond(token, TransferNotLeader(self.leader_id))
            return
        if target == self.id:
            self.respond(token, None)
            return
        if leadership.transfer is not None:
            self.respond(token, TransferRefused(f"the leadership is being handed to {leadership.transfer.target}"))
            return
        able = {peer: leadership.progress[peer] for peer in self.peers() if peer in leadership.progress}
        if target is None:
            reachable = [peer for peer, progress in able.items() if not progress.unreachable]
            target = max(reachable, key=lambda peer: able[peer].match_index, default=None)
        if target is None or target not in able:
            what = f"{target} is no voter here" if target else "there is no other voter that answers"
            self.respond(token, TransferRefused(what))
            return
        deadline = self.now + self.config.election_timeout_max * MILLISECOND
        leadership.transfer = Transfer(token, target, deadline)

    def drive_transfer(self) -> None:
        """Have the target stand, as soon as it has everything; once for each heartbeat, as long as it does not."""
        leadership = self.leadership
        if leadership is None or leadership.transfer is None:
            return
        transfer = leadership.transfer
        progress = leadership.progress.get(transfer.target)
        if progress is None or not self.membership.is_voter(transfer.target):
            self._end(TransferRefused(f"{transfer.target} is no voter any more"))
        elif not transfer.asked and progress.match_index == self.log.last_index:
            transfer.asked = leadership.lease_given_up = True
            self.send(transfer.target, "timeout_now", TimeoutNowRequest(self.term, self.id))

    def transfer_timeout(self) -> None:
        """Give up, if it is time to: this node leads on, and takes writes again."""
        transfer = self.leadership.transfer if self.leadership else None
        if transfer is not None and self.now >= transfer.deadline:
            self._end(TransferTimedOut(f"{transfer.target} did not take over within an election timeout"))

    def _end(self, answer: Exception) -> None:
        assert self.leadership is not None and self.leadership.transfer is not None
        self.respond(self.leadership.transfer.token, answer)
        self.leadership.transfer = None

    def timeout_now_requested(self, token: Token, request: TimeoutNowRequest) -> None:
        """The leader wants this node to take over."""
        if request.term > self.term:
            self.become_follower(request.term, request.leader_id)
        if request.term == self.term and self.state is State.FOLLOWER and self.leader_id in (None, request.leader_id):
            self.campaign(transfer=True)
        self.respond(token, TimeoutNowResponse(self.term))

    def campaign(self, *, transfer: bool = False) -> None:
        """Implemented where elections are."""
        raise AssertionError
