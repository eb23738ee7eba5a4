"""Random stories of the Raft core (tests/unit/raft): never a false alarm; each mutation of one is seen for what it is.

Stories have crashes, partitions, loss and duplication; what their nodes trace is the same as a real node's. A log that
is lost, or of which a part is, may hide a violation, and must never make one.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random

import pytest
from tests_traces import Lines, story_traces, write_traces

from raftbed.analysis.raft_invariants import judge
from raftbed.model import Verdict

Traces = dict[str, Lines]
SEEDS = range(120)


@cache
def story(seed: int) -> Traces:
    traces, ended = story_traces(seed)
    assert ended is None
    return traces


def verdict_on(traces: Traces, directory: Path) -> Verdict:
    return judge(write_traces(directory, traces))


def test_the_core_keeps_its_promises(tmp_path):
    valid = 0
    for seed in SEEDS:
        verdict = verdict_on(story(seed), tmp_path)
        assert verdict.validity != "invalid", f"seed {seed}: {verdict.summary}"
        valid += verdict.validity == "valid"
    assert valid > len(SEEDS) / 2, "most stories commit something"


# -- lost logs --------------------------------------------------------------------------------------------------------


def losses(traces: Traces, random: Random, directory: Path) -> dict[str, Path | None]:
    """The traces as files, of which some are missing, and some lack their beginning, their end, or a piece."""
    paths = write_traces(directory, traces)
    for node, path in paths.items():
        assert path is not None
        content = path.read_bytes()
        places = sorted(random.randrange(len(content) + 1) for _ in range(2))
        match random.choice(["whole", "gone", "empty", "beginning", "end", "piece", "lines", "rubbish", "killed"]):
            case "gone":
                paths[node] = None
            case "empty":
                path.write_bytes(b"")
            case "beginning":
                path.write_bytes(content[places[0] :])
            case "end":
                # But not just behind an "end": what would come after it cannot be missed.
                path.write_bytes(re.sub(rb'[^\n]*"end"[^\n]*\n?\Z', b"", content[: places[0]]))
            case "piece":
                path.write_bytes(content[: places[0]] + b"\n" + content[places[1] :])
            case "lines":
                kept = [line for line in content.splitlines(True) if random.random() > 0.05]
                path.write_bytes(b"".join(kept))
            case "rubbish":
                path.write_bytes(content[: places[0]] + random.randbytes(50) + b"\n" + content[places[1] :])
            case "killed":  # as the real processes are: none says that it came to its end
                path.write_bytes(b"".join(line for line in content.splitlines(True) if b'"end"' not in line))
    return paths


@pytest.mark.parametrize("round_", range(5))
def test_lost_logs_never_make_a_violation(round_, tmp_path):
    for seed in SEEDS:
        random = Random(f"{seed}:{round_}")
        verdict = judge(losses(story(seed), random, tmp_path))
        assert verdict.validity != "invalid", f"seed {seed}, round {round_}: {verdict.details['violations']}"


# -- mutations --------------------------------------------------------------------------------------------------------

Mutation = Callable[[Traces, Random], bool]
MUTATIONS: dict[str, list[Mutation]] = {}


def breaks(invariant: str) -> Callable[[Mutation], Mutation]:
    """A mutation after which `invariant` is broken; it returns False where the story gives no occasion."""

    def register(mutation: Mutation) -> Mutation:
        MUTATIONS.setdefault(invariant, []).append(mutation)
        return mutation

    return register


def records(traces: Traces, event: str) -> Iterator[tuple[str, int]]:
    """Node and position of all records of an event."""
    for node, lines in traces.items():
        for position, line in enumerate(lines):
            if line["event"] == event:
                yield node, position


def pick(traces: Traces, random: Random, event: str, condition: Callable[[dict], bool] = lambda line: True):
    found = [(node, at) for node, at in records(traces, event) if condition(traces[node][at])]
    return random.choice(found) if found else (None, 0)


def insert(traces: Traces, node: str, at: int, record: dict) -> None:
    traces[node].insert(at, record)
    seq = -1
    for line in traces[node]:
        seq = line["seq"] = 0 if line["event"] == "process" else seq + 1


@breaks("election-safety")
def another_leads_too(traces, random):
    node, at = pick(traces, random, "role", lambda line: line["role"] == "leader")
    if node is None:
        return False
    traces[node][at]["leader"] = node
    insert(traces, node, at, {**traces[node][at], "role": "follower", "leader": "another"})
    return True


@breaks("log-matching")
def an_entry_differs(traces, random):
    seen: dict[tuple[int, int], int] = {}
    for node, at in records(traces, "append"):
        line = traces[node][at]
        for index, term in enumerate(line["terms"], line["first"]):
            seen[index, term] = seen.get((index, term), 0) + 1
    node, at = pick(traces, random, "append", lambda line: seen[line["first"], line["terms"][0]] > 1)
    if node is None:
        return False
    traces[node][at]["hashes"][0] = "ffffffffffffffff"
    return True


@breaks("leader-completeness")
def a_leader_begins_with_less(traces, random):
    least = min((traces[node][at]["term"] for node, at in records(traces, "commit")), default=None)
    node, at = pick(traces, random, "role", lambda line: line["role"] == "leader" and least and line["term"] > least)
    if node is None:
        return False
    traces[node][at]["last"], traces[node][at]["hash"] = 0, "0" * 16
    return True


@breaks("state-machine-safety")
def another_entry_is_applied(traces, random):
    lasts = [traces[node][at]["last"] for node, at in records(traces, "apply")]
    node, at = pick(traces, random, "apply", lambda line: lasts.count(line["last"]) > 1)
    if node is None:
        return False
    traces[node][at]["hash"] = "ffffffffffffffff"
    return True


@breaks("state-machine-safety")
def entries_are_passed_over(traces, random):
    node, at = pick(traces, random, "apply", lambda line: line["first"] < line["last"])
    if node is None:
        return False
    traces[node][at]["first"] += 1
    return True


@breaks("leader-append-only")
def a_leader_truncates(traces, random):
    node, at = pick(traces, random, "role", lambda line: line["role"] == "leader")
    if node is None:
        return False
    line = traces[node][at]
    record = {"event": "truncate", "term": line["term"], "index": line["last"] + 1, "last": line["last"] + 1}
    insert(traces, node, at + 2, record)
    return True


@breaks("one-vote-per-term")
def a_second_vote(traces, random):
    node, at = pick(traces, random, "vote")
    if node is None:
        return False
    insert(traces, node, at + 1, {**traces[node][at], "candidate": "another"})
    return True


@breaks("votes-counted")
def a_vote_too_few(traces, random):
    node, at = pick(traces, random, "role", lambda line: line["role"] == "leader" and len(line["voters"][0]) > 1)
    if node is None:
        return False
    traces[node][at]["votes"] = [node]
    return True


@breaks("votes-counted")
def a_vote_that_nobody_gave(traces, random):
    given = {(node, traces[node][at]["term"]) for event in ("grant", "vote") for node, at in records(traces, event)}

    def silent(line):
        return [node for node in traces if (node, line["term"]) not in given and node not in line["votes"]]

    node, at = pick(traces, random, "role", lambda line: line["role"] == "leader" and silent(line))
    if node is None:
        return False
    line = traces[node][at]
    voter = random.choice(silent(line))
    if any(record["event"] == "boot" and record["voted_for"] == node for record in traces[voter]):
        return False
    line["votes"].append(voter)
    return True


@breaks("replicas-counted")
def a_replica_too_few(traces, random):
    node, at = pick(traces, random, "commit", lambda line: "acks" in line and len(line["acks"][0]) > 1)
    if node is None:
        return False
    line = traces[node][at]
    line["acks"] = [{voter: held if voter == node else 0 for voter, held in line["acks"][0].items()}]
    return True


@breaks("own-term-commit")
def an_earlier_term_is_counted(traces, random):
    for node, at in records(traces, "role"):
        line = traces[node][at]
        if (
            line["role"] == "leader"
            and line["last"]
            and line["term"] > 1
            and line["hash"] in known_hashes(traces[node][:at])
        ):
            held = dict.fromkeys(line["voters"][0], line["last"])
            commit = {"event": "commit", "term": line["term"], "index": line["last"], "hash": line["hash"]}
            insert(traces, node, at + 2, {**commit, "acks": [held]})
            return True
    return False


def known_hashes(lines: Lines) -> set[str]:
    return {digest for line in lines if line["event"] == "append" for digest in line["hashes"]}


@breaks("monotonic")
def a_commit_comes_twice(traces, random):
    node, at = pick(traces, random, "commit")
    if node is None:
        return False
    insert(traces, node, at + 1, dict(traces[node][at]))
    return True


@breaks("monotonic")
def a_term_goes_back(traces, random):
    node, at = pick(traces, random, "role", lambda line: line["term"] > 1)
    if node is None:
        return False
    insert(
        traces,
        node,
        at + 1,
        {"event": "role", "term": traces[node][at]["term"] - 1, "role": "follower", "leader": None},
    )
    return True


@breaks("applied-within-commit")
def more_is_applied_than_is_committed(traces, random):
    node, at = pick(traces, random, "commit", lambda line: line["index"] > 1)
    if node is None:
        return False
    del traces[node][at]
    insert(traces, node, at, {"event": "of a later version", "term": 0})
    return True


@breaks("hard-state")
def a_vote_is_forgotten(traces, random):
    durable = {(node, traces[node][at]["term"]) for node, at in records(traces, "vote")}
    starts = [(node, at) for node, at in records(traces, "boot") if (node, traces[node][at]["term"]) in durable]
    if not starts:
        return False
    node, at = random.choice(starts)
    traces[node][at]["voted_for"] = None
    return True


@breaks("hard-state")
def a_term_is_forgotten(traces, random):
    for node, at in records(traces, "vote"):
        for later in range(at, len(traces[node])):
            if traces[node][later]["event"] == "boot":
                traces[node][later].update(term=traces[node][at]["term"] - 1, voted_for=None)
                return True
    return False


@breaks("durability")
def an_entry_is_forgotten(traces, random):
    node, at = pick(traces, random, "boot", lambda line: line["last"] > 1 and line["last_term"] == line["term"])
    if node is None:
        return False
    line, before = traces[node][at], traces[node][:at]
    if not any(r["event"] == "durable" and r["index"] == line["last"] and r["hash"] == line["hash"] for r in before):
        return False
    line.update(last=line["last"] - 1, hash="")
    return True


@pytest.mark.parametrize(
    ("invariant", "mutation"), [(name, mutation) for name, several in MUTATIONS.items() for mutation in several]
)
def test_a_mutation_is_seen_for_what_it_is(invariant, mutation, tmp_path):
    tried = 0
    for seed in SEEDS:
        traces, random = copy.deepcopy(story(seed)), Random(seed)
        if not mutation(traces, random):
            continue
        tried += 1
        verdict = verdict_on(traces, tmp_path)
        assert invariant in verdict.details["counts"], f"seed {seed}: {json.dumps(verdict.details['counts'])}"
    assert tried >= 5, "stories give enough occasions"
