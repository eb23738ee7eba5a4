"""The node over HTTP: what it answers to whom, and that bad input gets a 4xx with one sentence and changes nothing."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest
from tests_served_node import Node

from raftbed.nodes.raft import VoteRequest

# -- the key-value API ------------------------------------------------------------------------------------------------


async def test_put_and_get(node):
    assert await node.put("a", {"x": [1, 2.5, None, "ü"]}) == (
        200,
        {"key": "a", "value": {"x": [1, 2.5, None, "ü"]}, "index": 3, "term": 1, "node": "n1"},
    )
    status, answer = await node.get("a")
    assert (status, answer["value"]) == (200, {"x": [1, 2.5, None, "ü"]})
    assert (await node.get("nothing"))[1]["value"] is None


async def test_compare_and_set(node):
    status, answer = await node.cas("k", 1, 2)
    assert (status, answer["value"]) == (200, 2)
    status, answer = await node.cas("k", 1, 3)
    assert (status, answer["error"], answer["definite"], answer["current"]) == (409, "precondition-failed", True, 2)
    assert (await node.get("k"))[1]["value"] == 2


@pytest.mark.parametrize("key", ["a%2Fb", "%C3%BC", "a%20b", "%F0%9F%98%80" * 1024])
async def test_keys_are_any_text(node, key):
    assert (await node.put(key, 7))[0] == 200
    assert (await node.get(key))[1]["value"] == 7


# -- exactly once -----------------------------------------------------------------------------------------------------


async def test_a_retried_write_is_done_once(node):
    first = await node.cas("k", 1, 2, client="c", serial=1)
    await node.put("k", 3)
    status, answer = await node.cas("k", 1, 2, client="c", serial=1)
    assert (first[0], status, answer["value"]) == (200, 200, 2), "the answer of the first time"
    assert (await node.get("k"))[1]["value"] == 3


async def test_a_write_that_the_session_has_left_behind_may_have_been_done(node):
    await node.put("k", 2, client="c", serial=1)
    await node.put("k", 3, client="c", serial=2)
    status, answer = await node.put("k", 2, client="c", serial=1)
    assert (status, answer["error"]) == (409, "stale-serial")
    assert answer["definite"] is False, "it was done, the first time"
    assert (await node.get("k"))[1]["value"] == 3


# -- who does not lead ------------------------------------------------------------------------------------------------


async def test_a_follower_names_the_leader_and_its_address(follower):
    for status, answer in (await follower.get("k"), await follower.put("k", 2), await follower.cas("k", 1, 2)):
        assert status == 421
        assert answer == {
            "error": "not-leader",
            "message": "n1 is not the leader; n2 is.",
            "definite": True,
            "leader": "n2",
            "leader_address": "127.0.0.1:2",
        }


async def test_a_node_that_knows_of_no_leader_says_so(pristine):
    for status, answer in (await pristine.get("k"), await pristine.put("k", 2)):
        assert (status, answer["error"], answer["definite"], answer["leader"]) == (503, "no-leader", True, None)


# -- initialize -------------------------------------------------------------------------------------------------------


async def test_initialize_is_for_pristine_nodes(node):
    status, answer = await node.ask("POST", "/admin/initialize", json={"members": ["n1"]})
    assert (status, answer["error"]) == (409, "not-allowed")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"members": ["n1", "n9"]}, "members: n9 has no address here."),
        ({"members": ["n2"]}, "members: n1 is not among them."),
        ({"members": "n1"}, "The body is not as it should be: Expected `array`, got `str` - at `$.members`."),
    ],
)
async def test_members_that_cannot_be(pristine, body, message):
    before = await pristine.state()
    status, answer = await pristine.ask("POST", "/admin/initialize", json=body)
    assert (status, answer["message"]) == (400, message)
    assert await pristine.state() == before


# -- bad input --------------------------------------------------------------------------------------------------------

PUT = "/kv/k/put"
BAD_REQUESTS: dict[str, tuple[str, str, dict[str, Any], int, str]] = {
    "malformed JSON": ("POST", PUT, {"data": b'{"value": '}, 400, "The body is not as it should be: "),
    "no body": ("POST", PUT, {}, 400, "The body is not as it should be: "),
    "not UTF-8": ("POST", PUT, {"data": b'{"value": "\xff"}'}, 400, "The body is not as it should be: "),
    "UTF-16": ("POST", PUT, {"data": '{"value": 1}'.encode("utf-16")}, 400, "The body is not as it should be: "),
    "half a surrogate": ("POST", PUT, {"data": b'{"value": "\\ud800"}'}, 400, "The body is not as it should be: "),
    "not a number": ("POST", PUT, {"data": b'{"value": NaN}'}, 400, "The body is not as it should be: "),
    "beyond a float": ("POST", PUT, {"data": b'{"value": 1e999}'}, 400, "The body is not as it should be: "),
    "not an object": ("POST", PUT, {"json": [1]}, 400, "The body is not as it should be: "),
    "a form": ("POST", PUT, {"data": {"value": "1"}}, 400, "The body is not as it should be: "),
    "compressed": (
        "POST",
        PUT,
        {"data": b"\x1f\x8b garbage", "headers": {"Content-Encoding": "gzip"}},
        400,
        "The body is not as it should be: ",
    ),
    "no value": ("POST", PUT, {"json": {}}, 400, "The body is not as it should be: Object missing required field"),
    "unknown field": ("POST", PUT, {"json": {"value": 2, "ttl": 1}}, 400, "The body is not as it should be: "),
    "a cas without old": ("POST", "/kv/k/cas", {"json": {"new": 2}}, 400, "The body is not as it should be: "),
    "a huge number": ("POST", PUT, {"data": b'{"value": [18446744073709551616]}'}, 400, "value: holds a whole number"),
    "a huge number as old": ("POST", "/kv/k/cas", {"data": b'{"old": 1e0, "new": -9223372036854775809}'}, 400, "new: "),
    "deep": ("POST", PUT, {"data": b'{"value": ' + b"[" * 65 + b"]" * 65 + b"}"}, 400, "value: is nested deeper"),
    "very deep": ("POST", PUT, {"data": b'{"value": ' + b"[" * 99999}, 400, "The body is not as it should be: "),
    "a huge body": ("POST", PUT, {"data": b'{"value": "' + b"x" * (1 << 20)}, 413, "The body is larger than 1048576"),
    "client alone": ("POST", PUT, {"json": {"value": 2, "client": "c"}}, 400, "client and serial: give both"),
    "serial alone": ("POST", PUT, {"json": {"value": 2, "serial": 1}}, 400, "client and serial: give both"),
    "client of a wrong type": ("POST", PUT, {"json": {"value": 2, "client": 7, "serial": 1}}, 400, "The body is not "),
    "serial of a wrong type": ("POST", PUT, {"json": {"value": 2, "client": "c", "serial": "1"}}, 400, "The body is "),
    "serial that is a boolean": ("POST", PUT, {"json": {"value": 2, "client": "c", "serial": True}}, 400, "The body "),
    "an empty client": ("POST", PUT, {"json": {"value": 2, "client": "", "serial": 1}}, 400, "client: must be a name"),
    "a long client": ("POST", PUT, {"json": {"value": 2, "client": "c" * 257, "serial": 1}}, 400, "client: must be a "),
    "serial zero": ("POST", PUT, {"json": {"value": 2, "client": "c", "serial": 0}}, 400, "serial: must be a whole "),
    "a huge serial": ("POST", PUT, {"json": {"value": 2, "client": "c", "serial": 1 << 63}}, 400, "serial: must be a "),
    "a timeout in words": ("GET", "/kv/k", {"headers": {"X-Raftbed-Timeout": "soon"}}, 400, "X-Raftbed-Timeout: must"),
    "a timeout of zero": ("GET", "/kv/k", {"headers": {"X-Raftbed-Timeout": "0"}}, 400, "X-Raftbed-Timeout: must be"),
    "a timeout of nan": ("GET", "/kv/k", {"headers": {"X-Raftbed-Timeout": "nan"}}, 400, "X-Raftbed-Timeout: must be"),
    "an endless timeout": (
        "POST",
        PUT,
        {"json": {"value": 2}, "headers": {"X-Raftbed-Timeout": "inf"}},
        400,
        "X-Raftbed-Timeout: must be",
    ),
    "a long key": ("POST", f"/kv/{'k' * 1025}/put", {"json": {"value": 2}}, 400, "The key has 1025 characters"),
    "an empty key": ("POST", "/kv//put", {"json": {"value": 2}}, 404, "POST /kv//put: Not Found."),
    "a query": ("GET", "/kv/k?stale=1", {}, 400, "A read takes no query."),
    "an unknown route": ("GET", "/nothing", {}, 404, "GET /nothing: Not Found."),
    "an unknown operation": ("POST", "/kv/k/delete", {"json": {}}, 404, "POST /kv/k/delete: Not Found."),
    "a wrong method": ("DELETE", "/kv/k", {}, 405, "DELETE /kv/k: Method Not Allowed."),
    "put by PUT": ("PUT", PUT, {"json": {"value": 2}}, 405, "PUT /kv/k/put: Method Not Allowed."),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
async def test_bad_input_gets_one_sentence_and_changes_nothing(node, name, caplog):
    method, path, options, status, message = BAD_REQUESTS[name]
    before = await node.state()
    answered, answer = await node.ask(method, path, **options)
    assert answered == status
    assert answer["message"].startswith(message)
    assert re.fullmatch(r"[^\n]+\.", answer["message"]), "one sentence on one line"
    assert set(answer) == {"error", "message", "definite", "leader", "leader_address"}
    assert answer["definite"] is True
    assert await node.state() == before
    assert not [record for record in caplog.records if record.exc_info], "no traceback: that would look like a crash"


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"GET /kv/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /kv/" + b"k" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /kv/k HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"POST /kv/k/put HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /kv/k/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_refused(node, data, caplog):
    caplog.set_level(logging.INFO)
    before = await node.state()
    assert (await node.raw(data)).startswith(b"HTTP/1.0 400 ")
    assert await node.state() == before
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize("path", [b"/kv/k/put", b"/raft/append_entries"])
async def test_a_request_that_breaks_off_is_nothing(node, path, caplog):
    before = await node.state()
    _, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nX-Raftbed-Cluster: here\r\nContent-Length: 99\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    while 'status="400"' not in await metrics_of(node):
        await asyncio.sleep(0)
    assert await node.state() == before
    assert not [record for record in caplog.records if record.exc_info]


# -- time and the end -------------------------------------------------------------------------------------------------


async def test_a_write_that_takes_too_long_is_unknown(node):
    node.disk.free.clear()
    options = {"json": {"value": 2}, "headers": {"X-Raftbed-Timeout": "0.01"}}
    status, answer = await node.ask("POST", "/kv/k/put", **options)
    assert (status, answer["error"], answer["definite"]) == (504, "timeout", False)
    node.disk.free.set()
    await node.put("another", 1)  # behind it in the log
    assert (await node.get("k"))[1]["value"] == 2, "and in fact it was done"


async def test_a_read_that_takes_too_long_had_no_effect(node):
    node.raft.begin_read = asyncio.get_running_loop().create_future  # no quorum confirms it
    status, answer = await node.get("k", headers={"X-Raftbed-Timeout": "0.01"})
    assert (status, answer["error"], answer["definite"]) == (503, "read-not-confirmed", True)


async def test_a_read_does_not_wait_for_the_disk(node):
    await node.put("k", 1)
    node.disk.free.clear()
    node.disk.reached.clear()
    written = asyncio.ensure_future(node.put("k", 2))
    await asyncio.to_thread(node.disk.reached.wait)  # the node is busy with its disk
    status, answer = await node.get("k")
    assert (status, answer["value"]) == (200, 1)  # the write is not committed yet
    node.disk.free.set()
    assert (await written)[0] == 200


async def test_a_node_that_shuts_down_says_so(node):
    await node.raft.shutdown()
    for status, answer in (await node.get("k"), await node.put("k", 2)):
        assert (status, answer["error"], answer["definite"]) == (503, "shutting-down", True)
    assert (await node.peer("vote", VoteRequest(9, "n2", 9, 9)))[0] == 503
    status, answer = await node.ask("POST", "/admin/initialize", json={"members": ["n1"]})
    assert (status, answer["error"]) == (503, "shutting-down")
    assert (await node.ask("GET", "/status"))[1]["state"] == "shutdown"


# -- status and metrics -----------------------------------------------------------------------------------------------


async def test_status(node):
    status, answer = await node.ask("GET", "/status")
    assert status == 200
    assert answer.pop("uptime") >= 0
    assert answer.pop("version")
    assert answer == {
        "id": "n1",
        "cluster": "here",
        "state": "leader",
        "term": 1,
        "leader": "n1",
        "leader_address": "127.0.0.1:1",
        "last_log_index": 2,
        "commit_index": 2,
        "last_applied": 2,
        "membership": {
            "members": ["n1"],
            "members_after_consensus": None,
            "non_voters": [],
            "addresses": {"n1": "127.0.0.1:1"},
        },
        "snapshot_index": 0,
        "streams": {},
        "bug": None,
    }


async def metrics_of(node: Node) -> str:
    async with node.client.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return await response.text()


async def test_metrics_are_in_the_format_of_prometheus(node):
    await node.ask("GET", "/nothing")
    text = await metrics_of(node)
    assert text.endswith("\n")
    types: dict[str, str] = {}
    samples: dict[str, float] = {}
    for line in text.splitlines():
        if declared := re.fullmatch(r"# TYPE ([a-z_]+) (gauge|counter)", line):
            types[declared[1]] = declared[2]
            continue
        sample = re.fullmatch(r'([a-z_]+)(\{[a-z_]+="[^"\\\n]*"(?:,[a-z_]+="[^"\\\n]*")*\})? (\S+)', line)
        assert sample, line
        assert sample[1] in types, "declared before its samples"
        assert sample[1] + (sample[2] or "") not in samples, "once"
        samples[sample[1] + (sample[2] or "")] = float(sample[3])
    assert samples["raft_term"] == samples["raft_is_leader"] == 1
    assert samples["raft_last_log_index"] == samples["raft_commit_index"] == samples["raft_last_applied"] == 2
    assert samples['raftbed_http_responses_total{route="/kv/{key}/put",status="200"}'] == 1
    assert samples['raftbed_http_responses_total{route="unknown",status="404"}'] == 1


@pytest.mark.parametrize("field", ["Origin", "Sec-Fetch-Site"])
@pytest.mark.parametrize("path", ["/admin/change_membership", "/admin/elect", "/sessions"])
async def test_a_web_page_cannot_operate_a_node(node, path, field):
    before = await node.state()
    status, answer = await node.ask("POST", path, data=b"{}", headers={field: "http://page.example"})
    assert (status, answer["error"], answer["definite"]) == (403, "from-a-web-page", True)
    assert await node.state() == before


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
async def test_curl_can_operate_a_node(node, kind):
    assert (await node.ask("POST", "/admin/snapshot", data=b"{}", headers={"Content-Type": kind}))[0] == 200


@pytest.mark.parametrize("path", ["/admin/initialize", "/admin/change_membership"])
async def test_a_name_that_is_none_is_quoted(node, path):
    status, answer = await node.ask("POST", path, json={"members": ["n1", ""]})
    assert (status, answer["message"]) == (400, "'': is no name of a node.")
