"""What contradicts what: violations, each with the two records that cannot both be."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

_LINE_BITS = 40
_MOST_OF_A_KIND = 5


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken invariant.

    Attributes:
        invariant: its name, as in docs/raft-invariants.md.
        sentence: what contradicts what.
        places: of the records that do, packed; see `unpack`.
    """

    invariant: str
    sentence: str
    places: tuple[int, ...]


class Findings:
    """The violations found: the first few of each invariant, and how many there were."""

    def __init__(self) -> None:
        self.kept: list[Violation] = []
        self.counts: Counter[str] = Counter()

    def add(self, invariant: str, sentence: str, *places: int) -> None:
        """Another violation; `places` in the order in which one should read them."""
        self.counts[invariant] += 1
        if self.counts[invariant] <= _MOST_OF_A_KIND:
            self.kept.append(Violation(invariant, sentence, places))


def pack(node: int, line: int) -> int:
    """The place of a record: the number of its node, and its line in that node's trace."""
    return node << _LINE_BITS | line


def unpack(place: int) -> tuple[int, int]:
    """Node number and line of a place."""
    return place >> _LINE_BITS, place & ((1 << _LINE_BITS) - 1)
