"""What all traces say together, and the invariants that span nodes.

Node clocks are not comparable, so nothing here asks what came first. Contradictions are between facts that hold for
ever: who led a term, what stands at an index in a term, what was committed by the end of a term. What only the end of a
trace can show (a vote that its giver never gave, an entry that its holder never held) is judged by `judge_claims` once
all traces were read, and not of the terms for which a part of that node's trace is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raftbed.analysis.raft_invariants.findings import Findings
from raftbed.analysis.raft_invariants.logs import AppliedChain, EntryTable, Run, term_at


@dataclass(slots=True)
class Stay:
    """A node's log as it was when the node left a term, or at the end of its trace.

    Attributes:
        run, last: the log in memory; `last` is -1 where it is not known.
        durable: how far of it was synced, by then or in the same write; -1 where that cannot be told.
        place: of the record that shows it.
    """

    run: Run | None
    last: int
    durable: int
    place: int


@dataclass(frozen=True, slots=True)
class Elected:
    """A node became leader.

    Attributes:
        node, term: who, of what.
        run, last, digest: the log with which it began; `last` is -1 where it is not known.
        votes: who was counted, () where the record does not say.
        place: of the record.
    """

    node: str
    term: int
    run: Run | None
    last: int
    digest: int
    votes: tuple[str, ...]
    place: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A leader counted on a peer to hold its log up to `index` durably."""

    index: int
    run: Run | None
    place: int


@dataclass(slots=True)
class Witness:
    """What one node's trace says in its favour, for others' claims about it to be compared with.

    Attributes:
        stays: term to the log with which it was left.
        grants: (term, candidate) of votes that it gave.
        gaps: spans of terms, ends included, of which records may be missing; None: up to any term.
    """

    stays: dict[int, Stay] = field(default_factory=dict)
    grants: set[tuple[int, str]] = field(default_factory=set)
    gaps: list[tuple[int, int | None]] = field(default_factory=list)

    def is_whole(self, term: int) -> bool:
        """Every record that this node wrote in `term` was read."""
        return not any(low <= term and (high is None or term <= high) for low, high in self.gaps)


class Evidence:
    """Facts of all nodes, compared as they come in."""

    def __init__(self) -> None:
        self.findings = Findings()
        self.entries = EntryTable()
        self.applied = AppliedChain()
        self.witnesses: dict[str, Witness] = {}
        self.elected: list[Elected] = []
        self._leaders: dict[int, tuple[str, str, int]] = {}  # term to leader, who says so, and where
        self._commits: dict[int, tuple[int, int, int]] = {}  # term to the most that was committed: index, hash, place
        self._claims: dict[tuple[int, str, str], Claim] = {}  # term, leader, peer

    # -- as records come in ---------------------------------------------------------------------------------------

    def leads(self, term: int, leader: str, witness: str, place: int) -> None:
        """`witness` says that `leader` leads `term`."""
        known = self._leaders.setdefault(term, (leader, witness, place))
        if known[0] != leader:
            told = [
                f"{who} led it" if who == teller else f"{teller} followed {who}"
                for who, teller in ((known[0], known[1]), (leader, witness))
            ]
            self.findings.add(
                "election-safety",
                f"Term {term} had two leaders, {known[0]} and {leader}: {told[0]}, and {told[1]}.",
                known[2],
                place,
            )

    def entry(self, node: str, index: int, term: int, digest: int, place: int) -> None:
        """`node` holds an entry, and `digest` is the hash of its log up to there."""
        other = self.entries.note(index, term, digest, place)
        if other is not None:
            self.findings.add(
                "log-matching",
                f"Entry {index} of term {term} ends two different logs; {node} has one of them.",
                other,
                place,
            )

    def committed(self, term: int, index: int, digest: int, place: int) -> None:
        """By `term`, everything up to `index` was committed."""
        known = self._commits.get(term)
        if known is None or index > known[0]:
            self._commits[term] = (index, digest, place)

    def claimed(self, term: int, leader: str, peer: str, claim: Claim) -> None:
        """The leader of `term` counted on a peer. A later claim replaces an earlier one: it says more."""
        self._claims[term, leader, peer] = claim

    def apply(self, node: str, first: int, last: int, digest: int, run: Run | None, place: int) -> None:
        """`node` applied entries up to `last`; `run` is its log, as far as it is known."""
        chain, entries = self.applied, self.entries
        known = chain.find(last)
        if known:
            if known != digest:
                self.findings.add(
                    "state-machine-safety",
                    f"{node} applied another entry {last}, or another one before it, than what had been applied there.",
                    chain.place(last),
                    place,
                )
            return
        if entries.digest(run, last) == digest:
            for index in range(first, last):
                before = entries.digest(run, index)
                if before:
                    seen = chain.find(index)
                    if seen and seen != before:
                        self.findings.add(
                            "state-machine-safety",
                            f"{node} applied another entry {index}, or another one before it, than what had been "
                            "applied there.",
                            chain.place(index),
                            place,
                        )
                        return
                    chain.set(index, before)
        chain.set(last, digest)
        chain.reached(last, place)

    # -- once all were read ---------------------------------------------------------------------------------------

    @property
    def leader_count(self) -> int:
        """How many terms had a leader."""
        return len(self._leaders)

    @property
    def commit_count(self) -> int:
        """In how many terms something was committed."""
        return len(self._commits)

    def judge(self) -> None:
        """Compare what only the whole can show."""
        self.judge_completeness()
        self.judge_votes()
        self.judge_claims()

    def judge_completeness(self) -> None:
        """Leader completeness: what was committed in a term is in the log of every leader of a later term."""
        terms = sorted(self._commits)
        position, most = 0, (0, 0, 0, 0)  # index, hash, place, term
        for leader in sorted(self.elected, key=lambda elected: elected.term):
            while position < len(terms) and terms[position] < leader.term:
                commit = self._commits[terms[position]]
                if commit[0] > most[0]:
                    most = (*commit, terms[position])
                position += 1
            index, digest, place, term = most
            if not index or leader.last < 0:
                continue
            if leader.last < index:
                said = f"its log ended at entry {leader.last}"
            else:
                own = leader.digest if leader.last == index else self.entries.digest(leader.run, index)
                if not own or not digest or own == digest:
                    continue
                said = "it had another entry there, or another one before it"
            self.findings.add(
                "leader-completeness",
                f"Entry {index} was committed by term {term}, but {leader.node} became leader of term {leader.term} "
                f"without it: {said}.",
                place,
                leader.place,
            )

    def judge_votes(self) -> None:
        """A vote that a leader counted is one that its giver gave."""
        for leader in self.elected:
            for voter in leader.votes:
                witness = self.witnesses.get(voter)
                if witness is None or not witness.is_whole(leader.term):
                    continue
                if (leader.term, leader.node) not in witness.grants:
                    stay = witness.stays.get(leader.term)
                    self.findings.add(
                        "votes-counted",
                        f"{leader.node} counted a vote of {voter} in term {leader.term}, but {voter} gave it none.",
                        leader.place,
                        *([stay.place] if stay else []),
                    )

    def judge_claims(self) -> None:
        """What a leader counted on a peer to hold, the peer held in that term, and synced."""
        for (term, leader, peer), claim in self._claims.items():
            witness = self.witnesses.get(peer)
            wanted = term_at(claim.run, claim.index)
            if witness is None or claim.index == 0 or wanted <= 0 or not witness.is_whole(term):
                continue
            stay = witness.stays.get(term)
            if stay is None:
                said, places = "was never in that term", []
            elif stay.last < 0:
                continue
            elif stay.last < claim.index or term_at(stay.run, claim.index) not in (wanted, -1):
                said, places = "did not hold it when it left that term", [stay.place]
            elif 0 <= stay.durable < claim.index:
                said, places = "had not synced it when it left that term", [stay.place]
            else:
                continue
            self.findings.add(
                "replicas-counted",
                f"{leader}, leader of term {term}, counted on {peer} to hold entry {claim.index} durably, "
                f"but {peer} {said}.",
                claim.place,
                *places,
            )


def majority_holds(sets: Sequence[Mapping[str, int]], index: int) -> bool:
    """In each set of voters, more than half hold the log up to `index`."""
    return all(sum(held >= index for held in voters.values()) * 2 > len(voters) for voters in sets)
