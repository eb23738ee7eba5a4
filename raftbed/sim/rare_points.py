"""Rare points of the core, armed in simulations: what it may do, and seldom does, done at random.

Theory of operation
-------------------
A correct core is free in many things: how many entries it sends at once, when it takes a snapshot, which timeout it
draws, whether it refuses a request. Bugs hide behind the choices that it hardly ever makes. FoundationDB's simulator
has its code ask, at such points, whether to do the rare thing now (Buggify; Zhou and others, SIGMOD 2021, section 4).
Here the points are the core's own methods, which `RareCore` overrides; the core that runs on hosts has no trace of it.

A plan says which points are armed in a run, each with its chance; every node draws from a generator of its own. With
the final heal they are all over, so that the end of a run is judged under fair conditions.

| point             | what happens                                                                             |
|-------------------|------------------------------------------------------------------------------------------|
| `single-entry`    | an append carries one entry, though more are due                                         |
| `one-in-flight`   | nothing more is sent to a peer before it has answered                                    |
| `probe-again`     | a leader forgets what is on its way to a peer, as if it were lost, and sends it again    |
| `snapshot-now`    | a snapshot is taken, whatever the policy says                                            |
| `forget-all`      | the log is cut at the snapshot: nothing is kept for peers that are a little behind       |
| `busy`            | a piece of a snapshot is not taken: try again later                                      |
| `refuse-write`, `refuse-read` | a request is refused as overloaded                                           |
| `least-timeout`   | an election timeout is the least that can be drawn                                       |
| `give-up-leading` | a leader steps down within its term, as if it had lost contact with the others           |
| `transfer-now`    | a leader hands over to whoever is best prepared                                          |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Any, Protocol

from raftbed.nodes.raft.config import MILLISECOND
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.errors import ReadOverloaded
from raftbed.nodes.raft.events import Ready, Send, Token
from raftbed.nodes.raft.messages import (
    AppendEntriesResponse,
    InstallSnapshotRequest,
    InstallSnapshotResponse,
    NodeId,
)
from raftbed.nodes.raft.progress import Progress

RARE = "rare "
"""How the names of these counts begin in the totals of a run."""


class Process(Protocol):
    """Whose core it is.

    Attributes:
        name: of the node.
        boot: number of the process.
    """

    name: str
    boot: int


class RarePoints:
    """The points that are armed in one run.

    Parameters:
        chances: of each that is.
        seed: of the run.

    Attributes:
        chances: see there.
        taken: how often each was.
        over: none is taken any more.
    """

    def __init__(self, chances: Mapping[str, float], seed: int) -> None:
        self.chances = chances
        self.taken: Counter[str] = Counter(dict.fromkeys(chances, 0))
        self.over = False
        self._seed = seed

    def core_of(self, process: Process) -> Callable[..., Core]:
        """Makes the cores of a node, with these points where there are any."""
        if not self.chances:
            return Core

        def make(*arguments: Any, **options: Any) -> Core:
            random = Random(f"{self._seed}:rare-points:{process.name}:{process.boot}")
            return RareCore(self, random.random, *arguments, **options)

        return make

    def counts(self) -> dict[str, int]:
        """How often each was taken, for the totals of a run."""
        return {f"{RARE}{name}": self.taken[name] for name in sorted(self.chances)}


class _Nobody:
    """Waits for no answer: the token of what a core asks of itself; fits every driver."""

    def done(self) -> bool:
        """As of a future."""
        return True

    def answer(self, node: Any, value: Any) -> None:
        """See `raftbed.sim.replies.Waiting`."""

    def reset(self, node: Any) -> None:
        """See `raftbed.sim.replies.Waiting`."""


class RareCore(Core):
    """A core that does the rare thing now and then.

    Parameters:
        points: that are armed.
        draw: a number from 0 to 1.
        arguments, options: as of `Core`.
    """

    def __init__(self, points: RarePoints, draw: Callable[[], float], *arguments: Any, **options: Any) -> None:
        self._points = points
        self._draw = draw
        super().__init__(*arguments, **options)
        self._usual = self.config
        self._single = replace(self.config, max_payload_entries=1)

    def _takes(self, point: str) -> bool:
        points = self._points
        chance = points.chances.get(point)
        if chance is None or points.over or self._draw() >= chance:
            return False
        points.taken[point] += 1
        return True

    # -- replication --------------------------------------------------------------------------------------------------

    def send_append(self, peer: NodeId, progress: Progress) -> None:
        """Send the next entries."""
        if self.log.last_index > progress.next_index and self._takes("single-entry"):
            self.config = self._single
        try:
            super().send_append(peer, progress)
        finally:
            self.config = self._usual

    def has_room(self, progress: Progress) -> bool:
        """Another message may be on its way to this peer."""
        return super().has_room(progress) and not (progress.inflight and self._takes("one-in-flight"))

    def append_answered(self, sent: Send, response: AppendEntriesResponse) -> None:
        """A peer answered."""
        super().append_answered(sent, response)
        progress = self.leadership.progress.get(sent.to) if self.leadership else None
        if progress is not None and progress.inflight and self._takes("probe-again"):
            progress.lost()

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot_if_due(self) -> None:
        """Take one when the policy says so."""
        super().snapshot_if_due()
        taken = self.snapshot.index if self.snapshot else 0
        if self.last_applied > taken and self.may_take_snapshot() and self._takes("snapshot-now"):
            self.take_snapshot()

    def compact_log(self, index: int) -> None:
        """Forget entries up to and with `index`, which the snapshot includes and the log has."""
        if self.snapshot is not None and index < self.snapshot.index and self._takes("forget-all"):
            index = self.snapshot.index
        super().compact_log(index)

    def install_requested(self, token: Token, request: InstallSnapshotRequest) -> None:
        """A leader sends a piece of a snapshot."""
        if request.term == self.term and request.leader_id == self.leader_id and self._takes("busy"):
            self.follow(request.term, request.leader_id)
            self.respond(token, InstallSnapshotResponse(self.term, request.offset))
        else:
            super().install_requested(token, request)

    # -- clients ------------------------------------------------------------------------------------------------------

    def is_overloaded(self) -> bool:
        """More is uncommitted than this leader wants to hold."""
        return super().is_overloaded() or self._takes("refuse-write")

    def read_requested(self, token: Token) -> None:
        """The application wants to read."""
        if self.leadership is not None and self._takes("refuse-read"):
            self.respond(token, ReadOverloaded("a rare point has it so"))
        else:
            super().read_requested(token)

    # -- elections ----------------------------------------------------------------------------------------------------

    def reset_election_deadline(self) -> None:
        """Draw a new election timeout, from now."""
        super().reset_election_deadline()
        if self._takes("least-timeout"):
            self.election_deadline = self.now + self.config.election_timeout_min * MILLISECOND

    def ready(self) -> Ready | None:
        """What to do now; None: nothing."""
        if self.leadership is not None:
            if self._takes("give-up-leading"):
                self.become_follower(self.term, None)
                self.reset_election_deadline()
            elif self._takes("transfer-now"):
                self.transfer_requested(_Nobody(), None)
        return super().ready()
