"""The register workload writes no value twice and compares with what it last saw."""

from collections import Counter

from tests_support import make_plan_for_tests

from raftbed.workloads.base import Outcome, Request
from raftbed.workloads.register import Register

PLAN = make_plan_for_tests(nodes=3, concurrency=4, keys=3)


def operations(worker: int, count: int):
    """Requests of one worker to a cluster that does whatever it is asked."""
    generator = Register().generator(PLAN, worker)
    state = {}
    for _ in range(count):
        request = generator.next()
        if request.f == "read":
            outcome = Outcome("ok", state.get(request.key))
        else:
            state[request.key] = request.value[1] if request.f == "cas" else request.value
            outcome = Outcome("ok", request.value)
        generator.observe(request, outcome)
        yield request, outcome


def test_no_value_is_written_twice_by_any_worker():
    written = Counter()
    for worker in range(PLAN.concurrency):
        for request, _ in operations(worker, 500):
            if request.f != "read":
                written[request.value[1] if request.f == "cas" else request.value] += 1
    assert max(written.values()) == 1


def test_reads_writes_and_compare_and_sets_are_mixed():
    kinds = Counter(request.f for request, _ in operations(0, 1000))
    assert min(kinds["read"], kinds["write"], kinds["cas"]) > 150


def test_a_compare_and_set_expects_the_value_last_seen_where_it_was_seen():
    last = None
    for request, outcome in operations(1, 500):
        if request.f == "cas":
            assert (request.key, request.value[0]) == last
            last = (request.key, request.value[1])
        elif outcome.value is not None:
            last = (request.key, outcome.value)


def test_after_an_unknown_compare_and_set_the_old_belief_is_dropped():
    generator = Register().generator(PLAN, 0)
    generator.observe(Request("read", "r1"), Outcome("ok", 5))
    generator.observe(Request("cas", "r1", [5, 6]), Outcome("info", [5, 6]))
    assert "cas" not in {generator.next().f for _ in range(200)}


def test_the_same_seed_makes_the_same_operations():
    assert [r for r, _ in operations(2, 100)] == [r for r, _ in operations(2, 100)]


def test_final_reads_cover_every_key_once():
    requests = [request for worker in range(4) for request in Register().final_requests(PLAN, worker)]
    assert sorted((r.f, r.key) for r in requests) == [("read", "r0"), ("read", "r1"), ("read", "r2")]
