"""docs/embedding.md says what the library does: its example runs, again, and has types; its tables are whole."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest

from raftbed.nodes import raft as library
from raftbed.nodes.raft import Config, LogsSinceLast, Raft, RaftNetwork, VoteRequest, VoteResponse
from raftbed.nodes.storage import MemoryStore, NodeStorage

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "embedding.md").read_text()
COUNTER, CODEC, OPTIONS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RUN = r"{total} {total}\nask n[123] to \{{'add': 1\}}\nafter a restart: {total}\n"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table that has `heading`."""
    table = PAGE.partition(f"\n| {heading} |")[2].partition("\n| --- ")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def test_the_counter_runs_and_runs_again_on_what_it_stored(tmp_path: Path) -> None:
    assert len(COUNTER.splitlines()) < 75
    for total in (42, 84):
        ended = subprocess.run(
            [sys.executable, "-c", COUNTER], capture_output=True, text=True, cwd=tmp_path, check=False
        )
        assert ended.stderr == ""
        assert re.fullmatch(RUN.format(total=total), ended.stdout)


def test_the_counter_ends_and_says_why_when_a_node_stops_by_a_failure(tmp_path: Path) -> None:
    """Though it is a follower, and nobody asks it anything."""
    lines = COUNTER.partition("        try:\n")[0]
    lines += "        counters[follower.id].total = None\n"
    lines += (
        "        await leader.client_write({'add': 1})\n        await asyncio.Event().wait()\n\nasyncio.run(main())"
    )
    command = [sys.executable, "-c", lines]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=60)
    assert ended.returncode == 1
    assert re.search(r"^node n[123] stops: the state machine failed: TypeError: ", ended.stderr, re.MULTILINE)
    assert "RaftStorageError: the state machine failed: TypeError: " in ended.stderr


def typecheck(example: str, place: Path) -> str:
    """What mypy, as tools/typecheck.py calls it, says of a program that embeds the library."""
    spec = importlib.util.spec_from_file_location("typecheck", ROOT / "tools" / "typecheck.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.link_tree(place)
    (place / "example.py").write_text(example)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", str(ROOT / ".mypy_cache"), "example.py"]
    environment = {**os.environ, "MYPYPATH": str(place)}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False).stdout


def test_the_counter_has_types(tmp_path: Path) -> None:
    assert typecheck(COUNTER, tmp_path) == "Success: no issues found in 1 source file\n"


@pytest.mark.parametrize(
    ("replaced", "by", "complaint"),
    [
        ("command: dict[str, int]", "command: str", ""),  # a command may be anything that msgpack can carry
        ('open_storage(Path("data") / name, counters[name])', "object()", 'expected "RaftStorage"'),
        ("Network(nodes)", "nodes", 'expected "RaftNetwork"'),
        ("initialize(nodes)", "initialize(list(nodes))", ""),
    ],
)
def test_types_take_what_is_right_and_nothing_else(replaced: str, by: str, complaint: str, tmp_path: Path) -> None:
    assert replaced in COUNTER
    adding = "self.total += int(command)" if by == "command: str" else 'self.total += command["add"]'
    example = COUNTER.replace(replaced, by).replace('self.total += command["add"]', adding)
    said = typecheck(example, tmp_path)
    assert (complaint in said) if complaint else said.startswith("Success")


def test_library_and_storages_need_nothing_but_msgspec(tmp_path: Path) -> None:
    listing = "import sys; before = set(sys.modules); import raftbed.nodes.raft, raftbed.nodes.storage; "
    listing += "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    ended = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, cwd=tmp_path, check=True)
    foreign = set(ended.stdout.split()) - set(sys.stdlib_module_names)
    assert foreign - {"typing_extensions"} == {"raftbed", "msgspec"}  # which msgspec imports only where it is


def messages() -> dict[str, tuple[str, str]]:
    """Method of a network to its request and its answer, as the protocol has them."""
    found = {}
    for name, method in inspect.getmembers(RaftNetwork, inspect.isfunction):
        if not name.startswith("_"):
            hints = get_type_hints(method)
            found[name] = (hints["rpc"].__name__, hints["return"].__args__[0].__name__)
    return found


def test_every_method_of_a_network_is_in_the_table_with_its_messages() -> None:
    table = {method.strip("`"): (asks.strip("`"), gets.strip("`")) for method, asks, gets in rows("method | request")}
    assert table == messages()
    assert len(table) == 5


async def test_messages_become_bytes_and_bytes_messages() -> None:
    raft = Raft("n1", Config("test"), object(), NodeStorage(MemoryStore(), object()))  # type: ignore[arg-type]
    requests = {method: getattr(library, asks) for method, (asks, _) in messages().items()}
    answers = {method: getattr(library, gets) for method, (_, gets) in messages().items()}
    names: dict[str, Any] = {"msgspec": msgspec, "raft": raft, "REQUESTS": requests, "ANSWERS": answers}
    names |= {"method": "pre_vote", "rpc": VoteRequest(1, "n2", 0, 0)}
    lines = "".join(f"    {line}\n" for line in CODEC.splitlines())
    exec(f"async def carry(method, rpc):\n{lines}    return answer", names)
    assert isinstance(await asyncio.wait_for(names["carry"]("pre_vote", names["rpc"]), 10), VoteResponse)
    await raft.shutdown()


def test_the_options_are_ones() -> None:
    config = eval(OPTIONS, {"Config": Config, "LogsSinceLast": LogsSinceLast})
    assert (config.snapshot_policy, config.trailing_logs) == (LogsSinceLast(500), 100)


def test_every_call_is_in_the_table() -> None:
    said = set(re.findall(r"`(\w+)\(", " ".join(call for call, _, _ in rows("call | returns"))))
    public = {name for name, _ in inspect.getmembers(Raft, inspect.isfunction) if not name.startswith("_")}
    for_transports = {*messages(), "receive", "begin_read", "begin_write"}
    assert said == public - for_transports
