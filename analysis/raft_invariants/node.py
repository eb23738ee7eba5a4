"""What a node says in its trace, judged: the invariants that it keeps alone, and what it tells of the cluster."""

from __future__ import annotations

from raftbed.analysis.raft_invariants.evidence import Claim, Elected, Evidence, majority_holds
from raftbed.analysis.raft_invariants.following import FollowedNode
from raftbed.analysis.raft_invariants.logs import NOTHING_KNOWN, term_at
from raftbed.analysis.raft_invariants.records import Apply, Boot, Commit, Grant, Role, Vote


class NodeTrace(FollowedNode):
    """Takes the records of one node. Parameters are those of `FollowedNode`."""

    def __init__(self, name: str, number: int, evidence: Evidence) -> None:
        super().__init__(name, number, evidence)
        self._votes: dict[int, tuple[str | None, int]] = {}  # term to whom, durably, and where
        self._handlers |= {
            Boot: self._boot,
            Role: self._role,
            Vote: self._vote,
            Grant: self._grant,
            Commit: self._commit,
            Apply: self._apply,
        }

    def _boot(self, record: Boot, place: int) -> None:
        """The node starts on what the disk holds."""
        self.boots += 1
        self._judge_hard_state(record, place)
        digest = int(record.hash or "0", 16)
        self._judge_disk(record, digest, place)
        if record.last and record.last_term:
            self._evidence.entry(self.name, record.last, record.last_term, digest, place)
        self._run = self._run_on_disk(record, digest)
        self._before.clear()
        for stay in self._unsettled:  # the disk shows how far the process before had come
            common = min(stay.last, record.last)
            stay.durable = common if term_at(stay.run, common) == term_at(self._run, common) >= 0 else -1
        self._unsettled.clear()
        self._last = self._synced = record.last
        self._committed = self._applied = record.snapshot
        self._start_place = self._commit_place = place
        disk = self._disk
        disk.last, disk.last_term, disk.digest, disk.place = record.last, record.last_term, digest, place
        disk.run = self._run
        if record.voted_for is not None:
            self._votes.setdefault(record.term, (record.voted_for, place))
            self._witness.grants.add((record.term, record.voted_for))
        if record.term >= disk.term:
            disk.term, disk.term_place = record.term, place

    def _judge_hard_state(self, record: Boot, place: int) -> None:
        disk = self._disk
        if record.term < disk.term:
            self._add(
                "hard-state",
                f"{self.name} came back in term {record.term}, although term {disk.term} had been durable there.",
                disk.term_place,
                place,
            )
        vote = self._votes.get(record.term)
        if vote is not None and vote[0] != record.voted_for:
            had = record.voted_for or "nobody"
            self._add(
                "hard-state",
                f"{self.name} came back with its vote in term {record.term} for {had}, although its vote for {vote[0]} "
                "had been durable.",
                vote[1],
                place,
            )

    def _role(self, record: Role, place: int) -> None:
        term, leader = record.term, record.leader
        if record.role == "candidate":
            self._witness.grants.add((term, self.name))  # a candidate votes for itself
        if leader is None:
            return
        if record.role != "leader":
            if leader != self.name:
                self._evidence.leads(term, leader, self.name, place)
            return
        self._evidence.leads(term, self.name, self.name, place)
        self._led[term] = place
        self._note_durable_term(term, place)
        self._elected(record, place)

    def _elected(self, record: Role, place: int) -> None:
        run, last, digest = self._run, self._last, 0
        if record.hash:
            digest = int(record.hash, 16)
            if last != record.last or (last > 0 and self._evidence.entries.digest(run, last) not in (0, digest)):
                run, last = NOTHING_KNOWN, record.last
        self._evidence.elected.append(Elected(self.name, record.term, run, last, digest, tuple(record.votes), place))
        if record.voters and not majority_holds([{v: v in record.votes for v in s} for s in record.voters], 1):
            said = " and of ".join(f"{sum(v in record.votes for v in s)} of {len(s)}" for s in record.voters)
            self._add(
                "votes-counted",
                f"{self.name} became leader of term {record.term} with the votes of {said} voters: no majority.",
                place,
            )

    def _grant(self, record: Grant, place: int) -> None:
        """A vote that is about to be given."""
        self._witness.grants.add((record.term, record.candidate))
        self._one_vote(
            record.term, record.candidate, self._grants.setdefault(record.term, (record.candidate, place)), place
        )
        if record.term in self._votes:
            self._one_vote(record.term, record.candidate, self._votes[record.term], place)

    def _vote(self, record: Vote, place: int) -> None:
        """A vote that is durable."""
        self._witness.grants.add((record.term, record.candidate))
        self._note_durable_term(record.term, place)
        self._one_vote(
            record.term, record.candidate, self._votes.setdefault(record.term, (record.candidate, place)), place
        )

    def _one_vote(self, term: int, candidate: str, known: tuple[str | None, int], place: int) -> None:
        if known[0] != candidate:
            self._add(
                "one-vote-per-term",
                f"{self.name} voted for {known[0]} and for {candidate} in term {term}.",
                known[1],
                place,
            )

    def _commit(self, record: Commit, place: int) -> None:
        index, digest = record.index, int(record.hash or "0", 16)
        if index <= self._committed:
            self._add(
                "monotonic",
                f"{self.name} committed up to entry {index}, when entry {self._committed} was committed already.",
                self._commit_place,
                place,
            )
        before, self._committed, self._commit_place = self._commit_place, index, place
        self._evidence.committed(record.term, index, digest, place)
        if record.acks:
            self._counted(record, digest, place, before)

    def _counted(self, record: Commit, digest: int, place: int, before: int) -> None:
        """A leader committed by counting replicas; `before` is the record of the commit before this one."""
        index, term = record.index, record.term
        if not majority_holds(record.acks, index):
            said = " and of ".join(f"{sum(h >= index for h in s.values())} of {len(s)}" for s in record.acks)
            self._add(
                "replicas-counted",
                f"{self.name} committed entry {index} in term {term} when it counted replicas of {said} voters: "
                "no majority.",
                place,
            )
        if term != self._acks_of:
            self._acks, self._acks_of = {}, term
        counted = {node: held for voters in record.acks for node, held in voters.items()}
        sure = index <= self._last and digest and self._evidence.entries.digest(self._run, index) == digest
        run = self._run if sure else NOTHING_KNOWN
        own = term_at(run, index)
        if own not in (term, -1):
            self._add(
                "own-term-commit",
                f"{self.name} committed entry {index} of term {own} by counting replicas in term {term}.",
                self._led.get(term, place),
                place,
            )
        for node, held in counted.items():
            if held < self._acks.get(node, 0):
                self._add(
                    "monotonic",
                    f"{self.name}, leader of term {term}, forgot that {node} holds entry {self._acks[node]}: "
                    f"it counted it for {held} entries later on.",
                    before,
                    place,
                )
            if node != self.name:
                self._evidence.claimed(term, self.name, node, Claim(held, run if held <= self._last else None, place))
            elif 0 <= self._synced < held:
                self._add(
                    "replicas-counted",
                    f"{self.name}, leader of term {term}, counted itself for entry {held} when it had synced its log "
                    f"up to entry {self._synced}.",
                    self._disk.place or self._start_place,
                    place,
                )
        self._acks = counted

    def _apply(self, record: Apply, place: int) -> None:
        first, last, digest = record.first, record.last, int(record.hash or "0", 16)
        if 0 <= self._committed < last:
            self._add(
                "applied-within-commit",
                f"{self.name} applied entry {last} when it knew entries to be committed up to {self._committed}.",
                self._commit_place,
                place,
            )
        if 0 <= self._applied != first - 1:
            said = "had applied nothing" if self._applied == 0 else f"had applied entries up to {self._applied}"
            self._add(
                "state-machine-safety",
                f"{self.name} went on to apply entry {first}, although it {said} since its start.",
                self._start_place,
                place,
            )
        self._applied = last
        if digest:
            self._evidence.apply(
                self.name, first, last, digest, self._run if last <= self._last else NOTHING_KNOWN, place
            )
