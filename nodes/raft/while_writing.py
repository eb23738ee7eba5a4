"""What a leader goes on with while its disk works: it replicates, commits, answers, and serves reads.

Theory of operation
-------------------
What a follower says of entries, or a candidate of its vote, is a promise about its disk, and waits for it. A leader
promises nothing about its own disk: its term is there, since it led only once its vote was; what it sends, followers
make durable, not it; and it counts itself towards a quorum only for what is durable here (`durable_index`; Raft thesis
10.2.1, and etcd's "asynchronous storage writes"). Therefore the effects of a leader depend on no write, and are done
beside it (`Ready.independent`); and while the disk works, a leader takes what clients ask and what peers answer:

- Writes are appended in memory, and sent to the peers at once; the disk gets all of them, as one write, when it is done
  with the one before. A follower may so have an entry before the leader's own disk does, and a quorum of followers may
  commit it. If this leader is then deposed or dies, the entry is as safe as any committed one: whoever is elected next
  has it.
- Acknowledgements commit, apply and answer. A write need not wait for the write of the batch behind it.
- What is applied may be in a snapshot before it is in the log on disk. The log is then begun anew after the snapshot:
  by the write that compacts it, or, if the node dies before that, when it starts.
- Reads are confirmed in rounds as ever: they ask what a quorum says, never the disk.

Everything else waits for the disk as it does anywhere, in the order in which it came: above all, whatever could depose
this leader, so that nothing changes hard state or shortens the log under a write. So a `Durable` always means: all but
what was appended since.

Two bounds. A disk that works on one write for too long ends all this, as it ends the heartbeats (keep_alive.py); and
what its own disk lacks counts against a leader's `max_uncommitted_entries` and `max_uncommitted_bytes`.

While the disk works, a peer is sent entries only when none are on their way to it, so that under load each message
carries many. (One message ahead of the peer's disk made no more writes a second, and cost more; docs/benchmarks.md.)
"""

from __future__ import annotations

from collections.abc import Iterable

from raftbed.nodes.raft.events import Answered, ClientRead, ClientWrite, Event, Failed, Persist, Ready
from raftbed.nodes.raft.keep_alive import KeepAlive
from raftbed.nodes.raft.messages import AppendEntriesResponse, InstallSnapshotResponse
from raftbed.nodes.raft.reads import Reads


class WhileWriting(Reads, KeepAlive):
    """The part of the core that takes events between a leader's `Ready` with something to persist and its `Durable`."""

    @property
    def goes_on_while_writing(self) -> bool:
        """The disk works for a leader: some events need not wait, and `takes_while_writing` says which."""
        return self.writing_since is not None and self.writes_as_leader

    def takes_while_writing(self, event: Event, now: int) -> bool:
        """Whether to step the event though the disk works; else step it when the disk is done."""
        if not self.goes_on_while_writing or now >= self.silent_from:
            return False
        if isinstance(event, (ClientWrite, ClientRead, Failed)):
            return True
        if not isinstance(event, Answered):
            return False
        response = event.response
        return response.term <= self.term and isinstance(response, (AppendEntriesResponse, InstallSnapshotResponse))

    def step_while_writing(self, events: Iterable[Event], now: int) -> list[Event]:
        """Take the events that need not wait for the disk; returns the others, in order."""
        waiting = []
        for event in events:
            if self.takes_while_writing(event, now):
                self.step(event, now)
            else:
                waiting.append(event)
        return waiting

    def step(self, event: Event, now: int) -> None:
        """Implemented where all parts come together."""
        raise AssertionError

    def ready_while_writing(self) -> Ready | None:
        """What to do now, beside the disk; None: nothing. What is to be written waits for the next `ready`."""
        self.drive_clients()
        return self.take_ready(None)

    def drive_clients(self) -> None:
        """What a leader does for its clients once all events were taken."""
        leadership = self.leadership
        if leadership is None:
            return  # it has left, and has nothing to do any more
        if leadership.reads_in_round:
            self.finish_read_round()
        asking = bool(leadership.reads_waiting) and self.begin_read_round()
        reached = self.replicate()
        if asking:
            self.ask_for_confirmation(besides=reached)
            self.finish_read_round()  # a node alone needs nobody's confirmation

    def take_ready(self, persist: Persist | None) -> Ready | None:
        """All that was said since the last time, with what is to be written, if anything; None: nothing."""
        if not (persist or self._early or self._effects or self._traces):
            return None
        independent = persist is None or self.writes_as_leader
        ready = Ready(tuple(self._early), persist, tuple(self._effects), tuple(self._traces), independent)
        self._early, self._effects, self._traces = [], [], []
        return ready
