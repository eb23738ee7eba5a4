"""Elections: timeouts, PreVote, votes, and who may lead (Raft paper 5.2 and 5.4.1; thesis 4.2.3 and 9.6)."""

from __future__ import annotations

from raftbed.nodes.raft.events import Send, Token
from raftbed.nodes.raft.messages import NodeId, VoteRequest, VoteResponse
from raftbed.nodes.raft.quorum import is_quorum
from raftbed.nodes.raft.state import CoreState, State


class Elections(CoreState):
    """The part of the core that stands for election, and votes."""

    # -- standing -------------------------------------------------------------------------------------------------

    def election_timeout(self) -> None:
        """No leader was heard from for an election timeout: stand, if this node may vote."""
        self.reset_election_deadline()
        if not self.may_stand():
            return
        if self.config.pre_vote:
            self.ask_for_promises()
        else:
            self.campaign()

    def ask_for_promises(self) -> None:
        """PreVote: would a quorum elect this node? Nothing is persisted, no term is disturbed."""
        self.leader_id = None
        self.change_state(State.PRE_CANDIDATE)
        self.votes = {self.id}
        if self.won():
            self.campaign()
        else:
            self.request_votes("pre_vote", self.term + 1)

    def campaign(self, *, transfer: bool = False) -> None:
        """Stand for election in a new term; the vote for oneself is durable before anyone is asked.

        `transfer`: the leader itself asked for it, so that voters need not protect it.
        """
        self.leader_id = None
        self.save_hard_state(self.term + 1, self.id)
        self.change_state(State.CANDIDATE)
        self.trace_role()  # a candidate that stands again stands in another term
        self.reset_election_deadline()
        self.votes = {self.id}
        self.request_votes(
            "vote", self.term, transfer=transfer
        )  # a sole voter has nobody to ask: it leads once its vote is durable

    def request_votes(self, method: str, term: int, *, transfer: bool = False) -> None:
        """Ask every other voter."""
        request = VoteRequest(term, self.id, self.log.last_index, self.log.last_term, transfer)
        for peer in self.peers():
            self.send(peer, "pre_vote" if method == "pre_vote" else "vote", request)

    def won(self) -> bool:
        """The votes are a majority of every set of voters."""
        return is_quorum(self.membership, self.votes)

    def vote_answered(self, sent: Send, response: VoteResponse) -> None:
        """Count an answer, if it belongs to the election that is under way."""
        if response.term > self.term:
            # A late answer to a follower that has heard from its leader meanwhile: it has refused its vote to whoever
            # stands in that term, and its leader may hold a lease by it.
            if self.state is State.LEADER or not self.heard_from_leader():
                self.become_follower(response.term, None)
            return
        if not response.vote_granted or not self.vote_counts(sent, response):
            return
        self.votes.add(sent.to)
        if self.won():
            if self.state is State.PRE_CANDIDATE:
                self.campaign()
            else:
                self.become_leader()

    def vote_counts(self, sent: Send, response: VoteResponse) -> bool:
        """The answer is to a question of this very election."""
        asked = sent.request
        assert isinstance(asked, VoteRequest)
        if sent.method == "pre_vote":
            return self.state is State.PRE_CANDIDATE and asked.term == self.term + 1
        return self.state is State.CANDIDATE and asked.term == self.term == response.term

    def become_leader(self) -> None:
        """Implemented where replication is."""
        raise AssertionError

    # -- voting ---------------------------------------------------------------------------------------------------

    def vote_requested(self, token: Token, request: VoteRequest) -> None:
        """Someone stands for election."""
        if self.heard_from_leader() and not request.leadership_transfer:
            # A live leader is protected: the term is not adopted (thesis 4.2.3).
            self.respond(token, VoteResponse(self.term, vote_granted=False))
            return
        if request.term > self.term:
            self.become_follower(request.term, None)
        granted = request.term == self.term and self.may_vote_for(request.candidate_id) and self.log_is_fresh(request)
        if granted:
            self.trace("grant", candidate=request.candidate_id)
            if self.hard_state.voted_for is None:
                self.save_hard_state(self.term, request.candidate_id)
            if self.state is State.PRE_CANDIDATE:
                self.become_follower(self.term, None)
            self.reset_election_deadline()
        self.respond(token, VoteResponse(self.term, vote_granted=granted))

    def promise_requested(self, token: Token, request: VoteRequest) -> None:
        """Someone asks whether it would be elected. Changes nothing here."""
        granted = (
            not self.heard_from_leader()
            and (request.term > self.term or (request.term == self.term and self.may_vote_for(request.candidate_id)))
            and self.log_is_fresh(request)
        )
        self.respond(token, VoteResponse(self.term, vote_granted=granted))

    def may_vote_for(self, candidate: NodeId) -> bool:
        """One vote per term: none was given yet, or it was given to this candidate."""
        return self.hard_state.voted_for in (None, candidate)

    def log_is_fresh(self, request: VoteRequest) -> bool:
        """The candidate's log is at least as up to date as ours: last term first, then length (paper, 5.4.1)."""
        return (request.last_log_term, request.last_log_index) >= (self.log.last_term, self.log.last_index)
