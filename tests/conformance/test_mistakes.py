"""What an application gets wrong at first is told at once, and in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from in_process import Nodes, Wires

from raftbed.nodes.raft import Config, Raft, State
from raftbed.nodes.storage import MemoryStore, NodeStorage

STORAGE: Any = NodeStorage(MemoryStore(), machine=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("id", [1, None, b"n1"])
async def test_the_id_of_a_node_is_text(id: Any):
    with pytest.raises(TypeError, match=r"^id: the id of a node is text, such as 'n1', not "):
        Raft(id, Config("test"), Wires().of("n1"), STORAGE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda raft: raft.initialize("n2"),
            r"^members: must be the ids of nodes, such as \{'n2'\}, not the text 'n2'\.$",
        ),
        (lambda raft: raft.initialize({1, 2}), r"^members: the id of a node is text, such as 'n1', not [12]\.$"),
        (lambda raft: raft.change_membership("n1"), r"^members: must be the ids of nodes, such as \{'n1'\}"),
        (lambda raft: raft.change_membership(["n1", None]), r"^members: the id of a node is text, .* not None\.$"),
        (lambda raft: raft.add_non_voter(2), r"^id: the id of a node is text, such as 'n1', not 2\.$"),
    ],
)
async def test_members_are_ids_and_no_text_is_taken_apart(call: Callable[[Any], Awaitable[None]], message: str):
    async with Nodes(1) as nodes:
        with pytest.raises(TypeError, match=message):
            await call(nodes["n1"])
        await nodes["n1"].initialize(["n1"])  # it is as pristine as it was
        metrics = await nodes["n1"].metrics().wait_for(lambda metrics: metrics.state is State.LEADER)
        assert metrics.membership_config.members == ("n1",)
