"""What commands print of several hosts, and the one exit code that they end with."""

from __future__ import annotations

import pytest

from raftbed.errors import CommandError, HostError
from raftbed.hosts.base import CommandResult
from raftbed.operating.showing import failure, how_to_talk, names_of, one_code, prefixed, worst_status

LOST = HostError("it cannot be reached.", host="n2")


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], 0),
        ([CommandResult(0, "", "")], 0),
        ([CommandResult(1, "", ""), CommandResult(3, "", ""), CommandResult(0, "", "")], 3),
        ([CommandResult(3, "", ""), LOST], 255),
    ],
)
def test_a_command_on_several_hosts_ends_with_the_worst_status(results, code):
    assert worst_status(results) == code


@pytest.mark.parametrize(("results", "code"), [(["started"], 0), (["started", LOST], 255)])
def test_whatever_failed_on_one_host_has_failed(results, code):
    assert one_code(results) == code


def test_every_line_stands_behind_the_name_of_its_host():
    assert prefixed("n1", "a\nb\n", 3) == ["n1  | a", "n1  | b"]


def test_a_failure_is_told_without_the_name_and_with_the_remedy():
    error = HostError("nothing is deployed to it.", host="n1", remedy="raftbed cluster deploy")
    assert failure("n1", error) == ["nothing is deployed to it.", "raftbed cluster deploy"]


def test_of_a_command_that_failed_its_own_words_are_told():
    error = CommandError(host="n1", command="sh -c 'a long script'", status=1, stderr="there is no log of a node\n")
    assert failure("n1", error) == ["there is no log of a node"]


def test_nodes_come_in_the_order_of_the_cluster_and_once_each():
    assert names_of(["n3", "n1", "n3"], ["n1", "n2", "n3"]) == ["n1", "n3"]
    assert names_of([], ["n1", "n2"]) == ["n1", "n2"]
    with pytest.raises(HostError, match=r"n9: there is no such node. Nodes of this cluster: n1, n2"):
        names_of(["n9"], ["n1", "n2"])


ADDRESSES = {"n1": "10.0.0.1:8400", "n2": "10.0.0.2:8400"}


def commands(**changes) -> str:
    options = {"ports": None, "inside": True, "several": False, **changes}
    return "\n".join(how_to_talk("default", "n2", ADDRESSES, **options))


def test_local_hosts_are_talked_to_on_the_host_of_the_leader():
    assert "raftbed cluster exec n2 -- curl -sS http://10.0.0.2:8400/kv/color" in commands()
    assert "raftbed cluster forward" in commands()


def test_with_a_forward_they_are_talked_to_on_loopback():
    said = commands(ports={"n1": 8401, "n2": 8402})
    assert "  curl -sS http://127.0.0.1:8402/kv/color" in said
    assert "10.0.0" not in said


def test_other_hosts_are_talked_to_directly():
    assert "  curl -sS http://10.0.0.2:8400/kv/color" in commands(inside=False)


def test_where_there_are_several_clusters_commands_say_which_one_they_mean():
    assert "raftbed cluster status --cluster default" in commands(several=True)
