"""docs/node.md says what the node does: every answer, every option, and an example that runs."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from raftbed.nodes.operate import COMMANDS
from raftbed.nodes.raft import Config

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "node.md").read_text()


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading."""
    table = PAGE.partition(f"\n## {heading}\n")[2].partition("\n| ---")[2].partition("\n\n")[0]
    return [[cell.strip().strip("`*") for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def test_every_answer_is_in_the_table():
    source = "".join(
        (ROOT / "nodes" / name).read_text()
        for name in ("problems.py", "server.py", "service.py", "requests.py", "admin.py")
    )
    made = {(int(status), code) for status, code in re.findall(r'Problem\(\s*(\d{3}), "([a-z-]+)"', source)}
    made |= {(int(status), code) for status, code in re.findall(r'(\d{3}): "([a-z-]+)"', source)}
    made |= {(int(status), code) for status, code in re.findall(r': \((\d{3}), "([a-z-]+)"\)', source)}
    assert {(int(status), code) for status, code, *_ in rows("Answers")} == made | {(409, "precondition-failed")}
    assert len(made) > 12


def test_every_option_is_in_the_table_with_its_default():
    defaults = {field.name: field.default for field in fields(Config) if field.name != "cluster_name"}
    said = {name: default.strip('"').replace("true", "True") for name, default, _ in rows("Configuration")}
    assert said == {name: str(default) for name, default in defaults.items()}


def test_every_command_of_operators_is_in_a_table():
    told = [name for cell, _ in rows("Operating a cluster") for name in re.findall(r"(?:^|`)([a-z-]+)", cell)]
    assert sorted(told) == sorted(COMMANDS)
