"""The logs of several nodes, shown as one: in the order of their times, each node's own lines in its own order."""

from __future__ import annotations

from raftbed.operating.logs import Following, LogLine, LogReader, merge


def lines(node: str, *texts: str, zone: str = "+0000") -> list[LogLine]:
    reader = LogReader(node, zone)
    return [reader.read(text) for text in texts]


def shown(merged) -> list[str]:
    return [f"{line.node}: {line.text.rpartition(' ')[2]}" for line in merged]


def test_lines_come_in_the_order_of_their_times():
    one = lines("n1", "2026-11-25 10:00:00,100 INFO a", "2026-11-25 10:00:00,300 INFO c")
    two = lines("n2", "2026-11-25 10:00:00,200 INFO b", "2026-11-25 10:00:00,400 INFO d")
    assert shown(merge([one, two])) == ["n1: a", "n2: b", "n1: c", "n2: d"]


def test_lines_of_the_same_time_come_in_the_order_of_the_nodes():
    same = "2026-11-25 10:00:00,100 INFO x"
    assert shown(merge([lines("n1", same, same), lines("n2", same)])) == ["n1: x", "n1: x", "n2: x"]


def test_a_line_without_a_time_stays_with_the_line_before_it():
    one = lines(
        "n1", "2026-11-25 10:00:00,100 ERROR it broke:", "Traceback", "  File", "2026-11-25 10:00:00,500 INFO z"
    )
    two = lines("n2", "2026-11-25 10:00:00,200 INFO b")
    assert shown(merge([one, two])) == ["n1: broke:", "n1: Traceback", "n1: File", "n2: b", "n1: z"]


def test_a_clock_that_is_set_back_does_not_turn_a_nodes_story_around():
    one = lines("n1", "2026-11-25 10:00:05,000 INFO first", "2026-11-25 10:00:01,000 INFO then")
    two = lines("n2", "2026-11-25 10:00:03,000 INFO other")
    assert shown(merge([one, two])) == ["n2: other", "n1: first", "n1: then"]
    assert one[1].time == one[0].time


def test_hosts_in_different_zones_are_compared_by_the_same_clock():
    one = lines("n1", "2026-11-25 12:00:00,000 INFO later", zone="+0100")
    two = lines("n2", "2026-11-25 05:30:00,000 INFO earlier", zone="-0500")
    assert shown(merge([one, two])) == ["n2: earlier", "n1: later"]


def test_what_only_looks_like_a_time_is_text():
    first, second = lines("n1", "2026-11-25 10:00:00,100 INFO a", "2026-99-99 10:00:00,100 nonsense")
    assert second.time == first.time


class Story:
    """Logs that go on, and a clock that only the test moves."""

    def __init__(self, *nodes: str) -> None:
        self.following = Following(nodes, patience=1.0)
        self.readers = {node: LogReader(node) for node in nodes}

    def write(self, node: str, second: int, text: str, *, at: float) -> None:
        self.following.add(self.readers[node].read(f"2026-11-25 10:00:{second:02d},000 INFO {text}"), at)

    def shown(self, *, at: float) -> list[str]:
        return shown(self.following.ready(at))


def test_a_line_waits_for_earlier_ones_of_other_nodes_but_not_for_ever():
    story = Story("n1", "n2")
    story.write("n1", 5, "late", at=0.0)
    assert story.shown(at=0.5) == []
    story.write("n2", 4, "early", at=0.6)
    assert story.shown(at=0.7) == ["n2: early"]  # n2 might still write something of second 4, before n1's
    assert story.shown(at=1.1) == ["n1: late"]


def test_a_line_is_shown_at_once_when_nothing_earlier_can_come():
    story = Story("n1", "n2")
    story.write("n1", 5, "a", at=0.0)
    story.write("n2", 6, "b", at=0.0)
    assert story.shown(at=0.0) == ["n1: a"]


def test_a_line_that_has_waited_long_enough_takes_earlier_ones_along():
    story = Story("n1", "n2", "n3")  # nothing is heard of n3
    story.write("n2", 7, "late", at=0.0)
    story.write("n1", 5, "early", at=0.9)
    assert story.shown(at=1.0) == ["n1: early", "n2: late"]


def test_a_log_that_has_ended_is_not_waited_for():
    story = Story("n1", "n2")
    story.write("n1", 5, "a", at=0.0)
    story.following.ended("n2")
    assert story.shown(at=0.0) == ["n1: a"]
