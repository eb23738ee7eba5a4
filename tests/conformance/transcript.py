"""Runs transcripts: files of commands and what came of them, which read like stories (transcripts/*.txt).

A command stands before a line of four dashes, what came of it behind, up to an empty line; lines that begin with # are
for the reader. The cores are real, time is virtual, and every message takes 1 ms and every sync 0.1 ms, so that a story
is the same each time. What is told: roles, votes, appends, truncations, commits, snapshots, and answers to requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from raft_harness import MS, Cluster, Outcome

from raftbed.nodes.raft import Blank, ConfigChange, Entry, LogsSinceLast, MembershipConfig, Normal, SnapshotMeta
from raftbed.nodes.raft.core import Core
from raftbed.nodes.raft.events import Heartbeat, Trace

DASHES = "----"


class Story:
    """One transcript as it is told: `tell` does a command and returns what came of it."""

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.lines: list[str] = []
        self.asked: list[tuple[str, Outcome]] = []

    def tell(self, command: str) -> str:
        verb, *words = command.split()
        getattr(self, f"do_{verb}")(*words)
        for name, outcome in list(self.asked):
            if outcome.done:
                self.asked.remove((name, outcome))
                self.lines.append(f"{name}: {said(outcome.value)}")
        lines, self.lines = self.lines, []
        return "\n".join(lines) or "ok"

    @property
    def world(self) -> Cluster:
        assert self.cluster is not None, "a story begins with `cluster`"
        return self.cluster

    def see(self, core: Core, trace: Trace) -> None:
        fields = trace.fields
        match trace.event:
            case "role":
                leader = fields["leader"]
                follows = f", follows {leader}" if leader not in (None, core.id) else ""
                self.lines.append(f"{core.id} is {fields['role']} in term {fields['term']}{follows}")
            case "vote" if fields["candidate"] != core.id:
                self.lines.append(f"{core.id} votes for {fields['candidate']} in term {fields['term']}")
            case "append":
                self.lines.append(f"{core.id} appends {log_of(core, fields['first'], fields['last'])}")
            case "truncate":
                self.lines.append(f"{core.id} drops {fields['index']} to {fields['last']}")
            case "commit":
                self.lines.append(f"{core.id} commits {fields['index']}")
            case "snapshot":
                verb = "installs" if fields["installed"] else "takes"
                self.lines.append(f"{core.id} {verb} a snapshot up to {fields['index']}")

    # -- commands -------------------------------------------------------------------------------------------------

    def do_cluster(self, size: str, *options: str) -> None:
        """cluster SIZE [OPTION=VALUE ...]: nodes n1 to nSIZE, pristine."""
        given = {key: msgspec.json.decode(value) for key, _, value in (option.partition("=") for option in options)}
        if "snapshot_policy" in given:
            given["snapshot_policy"] = LogsSinceLast(given["snapshot_policy"])
        self.cluster = Cluster(int(size), initialized=False, **given)
        self.cluster.delay, self.cluster.disk_time = (MS, MS), (MS // 10, MS // 10)
        judge = self.cluster.invariants.see

        def see(core: Core, trace: Trace) -> None:
            judge(core, trace)
            self.see(core, trace)

        self.cluster.invariants.see = see  # type: ignore[method-assign]

    def do_initialize(self, name: str) -> None:
        self.ask(f"initialize {name}", self.world.initialize(name))

    def do_run(self, milliseconds: str) -> None:
        """run MS: time goes by."""
        self.world.run(float(milliseconds))

    def do_settle(self) -> None:
        """settle: until all who are up follow one leader and have all that it has."""
        self.world.run_until(lambda: self.world.settled() and self.world.together(), 10_000)

    def do_quietly(self, *command: str) -> None:
        """quietly COMMAND: do it, and leave out what comes of it."""
        self.tell(" ".join(command))
        self.lines.clear()

    def do_write(self, name: str, data: str) -> None:
        self.ask(f"write {data}", self.world.write(name, data))

    def do_read(self, name: str) -> None:
        self.ask(f"read at {name}", self.world.read(name))

    def do_change(self, name: str, *members: str) -> None:
        self.ask(f"change to {' '.join(members)}", self.world.change(name, *members))

    def do_add(self, name: str, node: str) -> None:
        self.ask(f"add {node}", self.world.add_non_voter(name, node))

    def do_transfer(self, name: str, target: str | None = None) -> None:
        self.ask(f"transfer to {target}", self.world.transfer(name, target))

    def do_compact(self, name: str) -> None:
        self.ask(f"compact {name}", self.world.compact(name))

    def do_elect(self, name: str) -> None:
        self.world.elect(name)

    def do_beat(self, name: str) -> None:
        self.world.nodes[name].take(Heartbeat())

    def do_crash(self, *names: str) -> None:
        for name in names:
            self.world.nodes[name].crash()

    def do_start(self, *names: str) -> None:
        for name in names:
            self.world.nodes[name].start()

    def do_partition(self, *groups: str) -> None:
        """partition n1,n2 n3: nodes of different groups do not hear each other."""
        self.world.partition(*(group.split(",") for group in groups))

    def do_deafen(self, sender: str, receiver: str) -> None:
        """deafen FROM TO: what FROM sends does not reach TO."""
        self.world.cut.add((sender, receiver))

    def do_heal(self) -> None:
        self.world.heal()

    def do_status(self) -> None:
        for name, node in self.world.nodes.items():
            core = node.core
            if core is None:
                self.lines.append(f"{name} down")
                continue
            first = core.log.base.index + 1
            log = f"log {first} to {core.log.last_index}" if core.log.last_index >= first else "log empty"
            self.lines.append(f"{name} {core.state} term {core.term}, {log}, commit {core.commit_index}")

    def do_log(self, *names: str) -> None:
        for name in names or self.world.nodes:
            core = self.world.core(name)
            before = [f"(snapshot to {core.snapshot.index})"] if core.snapshot else []
            self.lines.append(" ".join([name, *before, log_of(core, core.log.base.index + 1, core.log.last_index)]))

    def do_members(self, *names: str) -> None:
        for name in names or self.world.nodes:
            self.lines.append(f"{name} {members(self.world.core(name).membership)}")

    def ask(self, name: str, outcome: Outcome) -> None:
        self.asked.append((name, outcome))


def log_of(core: Core, first: int, last: int) -> str:
    """Entries as INDEX:CONTENT(TERM)."""
    return " ".join(f"{entry.index}:{content(entry)}({entry.term})" for entry in core.log.slice(first, last + 1)) or "-"


def content(entry: Entry) -> str:
    match entry.payload:
        case Blank():
            return "blank"
        case ConfigChange(membership):
            return f"[{members(membership)}]"
        case Normal(data):
            return str(data)


def members(membership: MembershipConfig) -> str:
    sets = " -> ".join(" ".join(voters) for voters in membership.voter_sets())
    return sets + (f" + {' '.join(membership.non_voters)}" if membership.non_voters else "")


def said(value: Any) -> str:
    match value:
        case None:
            return "done"
        case Exception():
            return f"{type(value).__name__}: {value}"
        case SnapshotMeta():
            return f"done, up to {value.index}"
        case (index, Normal() | Blank()):
            return f"committed at {index}"
        case _:
            return f"served as of {value}"


def commands(text: str) -> Iterator[tuple[list[str], str | None, str]]:
    """Blocks of a transcript: what stands before the command, the command, what is expected."""
    for block in text.strip().split("\n\n"):
        lines = block.splitlines()
        comments = [line for line in lines if line.startswith("#")]
        rest = lines[len(comments) :]
        if not rest:
            yield comments, None, ""
        else:
            assert len(rest) > 1 and rest[1] == DASHES, f"no {DASHES} after {rest[0]!r}"
            yield comments, rest[0], "\n".join(rest[2:])


def play(path: Path, check: Callable[[str, str, str], None]) -> str:
    """Tell a transcript, and `check` what came of each command; returns it as it came out."""
    story, blocks = Story(), []
    for comments, command, expected in commands(path.read_text()):
        if command is None:
            blocks.append("\n".join(comments))
            continue
        came = story.tell(command)
        check(command, expected, came)
        blocks.append("\n".join([*comments, command, DASHES, came]))
    return "\n\n".join(blocks) + "\n"
