"""The layers of docs/architecture.md, as tests over the imports that the source files make.

Data flows one way (plan, deploy, run, record, check, report) and imports point one way. A red test here means that a
part learned something it must not know.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "raftbed": "raftbed",
    "docker": "raftbed.docker",
    "nodes": "raftbed.nodes",
    "workloads": "raftbed.workloads",
    "analysis": "raftbed.analysis",
}
LONGEST_MODULE = 450
DRIVER = (
    "api",
    "calls",
    "driver",
    "operators",
    "snapshot_work",
    "storage_thread",
    "watch",
    "raft",
)  # around the core; impure


def sources() -> dict[str, Path]:
    """Import name to file, of every module of the distribution."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


SOURCES = sources()


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, anywhere in it; ``from a import b`` counts as a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer they reach into"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def below(package: str) -> list[str]:
    """The modules of a package, itself included."""
    return [name for name in SOURCES if name == package or name.startswith(f"{package}.")]


def within(imported: str, *allowed: str) -> bool:
    """`imported` is one of `allowed` or lies below one."""
    return any(imported == name or imported.startswith(f"{name}.") for name in allowed)


def own(path: Path) -> list[str]:
    """What a file imports of raftbed itself."""
    return [name for name in imports(path) if within(name, "raftbed")]


def foreign(path: Path) -> set[str]:
    """Top-level names of what a file imports from outside the standard library and raftbed."""
    tops = {name.partition(".")[0] for name in imports(path)}
    return tops - set(sys.stdlib_module_names) - {"raftbed"}


def rule(modules: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("module", modules)


@rule(list(SOURCES))
def test_code_folders_are_imported_under_their_own_names(module):
    bare = [name for name in imports(SOURCES[module]) if within(name, "nodes", "workloads", "analysis")]
    assert not bare, "a bare folder name makes a second copy of the module"


@rule(below("raftbed.nodes"))
def test_nodes_know_nothing_of_the_controller(module):
    assert [n for n in own(SOURCES[module]) if not within(n, "raftbed.nodes", "raftbed.__version__")] == []


HTTP = ("raftbed.nodes.server", "raftbed.nodes.http_shortcut")


@rule([name for name in below("raftbed.nodes") if name not in HTTP])
def test_only_the_server_knows_aiohttp(module):
    assert "aiohttp" not in foreign(SOURCES[module])


@rule([name for name in below("raftbed.nodes.raft") if name.rpartition(".")[2] not in DRIVER])
def test_the_raft_core_is_pure(module):
    impure = ("asyncio", "time", "datetime", "socket", "threading", "os", "io", "pathlib", "subprocess", "secrets")
    reached = [name for name in imports(SOURCES[module]) if within(name, *impure)]
    assert not reached, "time and randomness come in, effects go out"
    drawn = [name for name in imports(SOURCES[module]) if within(name, "random") and name != "random.Random"]
    assert not drawn, "the seeded generator comes in"


@rule(below("raftbed.analysis"))
def test_analysis_reads_records_and_nothing_else(module):
    allowed = (
        "raftbed.analysis",
        "raftbed.model",
        "raftbed.errors",
        "raftbed.record",
        "raftbed.store",
        "raftbed.private_files",
        "raftbed.__version__",
    )
    assert [name for name in own(SOURCES[module]) if not within(name, *allowed)] == []
    assert not foreign(SOURCES[module]) & {"aiohttp", "asyncssh", "paramiko", "fabric"}


@rule(below("raftbed.workloads"))
def test_workloads_know_only_the_model(module):
    assert [n for n in own(SOURCES[module]) if not within(n, "raftbed.workloads", "raftbed.model")] == []


@rule(below("raftbed.bugs"))
def test_bugs_import_only_what_they_change(module):
    assert [n for n in own(SOURCES[module]) if not within(n, "raftbed.nodes", "raftbed.bugs")] == []


@rule(below("raftbed.hosts") + below("raftbed.faults"))
def test_hosts_and_faults_do_not_know_the_run(module):
    above = ("raftbed.run", "raftbed.running", "raftbed.suite", "raftbed.plan", "raftbed.systems", "raftbed.analysis")
    assert [name for name in own(SOURCES[module]) if within(name, *above)] == []


@rule([f"raftbed.operating.{name}" for name in ("health", "logs", "showing", "ssh_config")])
def test_what_operating_shows_is_pure(module):
    assert not foreign(SOURCES[module])
    impure = ("asyncio", "time", "datetime.datetime.now", "socket", "threading", "os", "io", "subprocess", "sys")
    assert not [name for name in imports(SOURCES[module]) if within(name, *impure)]


@rule([name for name in SOURCES if not within(name, "raftbed.operating", "raftbed.hosts.blocking")])
def test_only_operating_works_with_fabric(module):
    assert not foreign(SOURCES[module]) & {"fabric", "invoke"}


@rule(below("raftbed.hosts") + below("raftbed.faults") + below("raftbed.systems"))
def test_what_is_operated_does_not_know_it(module):
    assert not [name for name in own(SOURCES[module]) if within(name, "raftbed.operating")]


@rule(below("raftbed.sim"))
def test_virtual_time_knows_no_other(module):
    processes = ("campaign", "child", "hunting", "shrink")  # of the test bed itself: they measure what they take
    if module.rpartition(".")[2] not in processes:
        assert not [name for name in imports(SOURCES[module]) if within(name, "time", "datetime", "threading")]
    if not within(module, "raftbed.sim.shell"):
        assert not foreign(SOURCES[module]) & {"aiohttp"}, "cores are simulated without their shell"


def test_the_model_is_a_leaf():
    assert own(SOURCES["raftbed.model"]) == []
    assert foreign(SOURCES["raftbed.model"]) == set()


@rule([name for name in SOURCES if name != "raftbed.cli"])
def test_nobody_imports_the_command_line(module):
    assert not [name for name in own(SOURCES[module]) if within(name, "raftbed.cli")]


@rule([name for name in SOURCES if name != "raftbed.bugs" and not name.startswith("raftbed.bugs.")])
def test_production_code_has_no_switch_for_a_bug(module):
    planted = [path.stem for path in (ROOT / "raftbed" / "bugs").glob("*.py") if path.stem != "__init__"]
    text = SOURCES[module].read_text()
    assert not [stem for stem in planted if stem in text or stem.replace("_", "-") in text]


@rule(list(SOURCES))
def test_modules_stay_readable(module):
    assert len(SOURCES[module].read_text().splitlines()) <= LONGEST_MODULE


def test_every_package_is_in_the_distribution():
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {name for name, path in SOURCES.items() if path.name == "__init__.py"}
    assert set(configured) == on_disk


def test_help_loads_nothing_heavy():
    code = "import sys, json, raftbed.cli; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    loaded = {name.partition(".")[0] for name in json.loads(ended.stdout)}
    heavy = {"asyncio", "aiohttp", "asyncssh", "numpy", "pandas", "plotly", "paramiko", "fabric", "jinja2", "rich"}
    assert not loaded & heavy
