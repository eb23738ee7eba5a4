# ruff: noqa: ASYNC221  # a test may wait for the local disk and for processes
"""The bundle depends on its contents only, arrives verified or not at all, and is not pushed twice."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import zipfile

import pytest
from tests_machine import ThisMachine

from raftbed import bugs, deploy, wheelhouse
from raftbed.archive import make_archive
from raftbed.errors import DeployError, UsageError


@pytest.fixture
def host(tmp_path):
    return ThisMachine(tmp_path / "home")


def names(bundle: deploy.Bundle) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(bundle.archive)) as tar:
        return tar.getnames()


def test_the_bundle_holds_the_nodes_and_nothing_of_the_controller():
    packed = names(deploy.make_bundle())
    assert "raftbed/__init__.py" in packed
    assert "raftbed/nodes/__init__.py" in packed
    assert all(name == "raftbed/__init__.py" or name.startswith("raftbed/nodes/") for name in packed)
    assert not [name for name in packed if "__pycache__" in name]


def test_the_same_code_makes_the_same_bundle():
    assert deploy.make_bundle() == deploy.make_bundle()


def test_other_contents_make_another_hash():
    assert make_archive({"a": b"1"}).hash != make_archive({"a": b"2"}).hash


def test_an_unknown_bug_is_a_usage_error():
    with pytest.raises(UsageError, match="there is no bug"):
        deploy.make_bundle(with_bug="no-such-bug")


def test_a_bug_travels_alone():
    known = bugs.names()
    if not known:
        pytest.skip("no bug is planted yet")
    with_bug, without = (deploy.make_bundle(with_bug=bug) for bug in (known[0], None))
    added = set(names(with_bug)) - set(names(without))
    assert added == {"raftbed/bugs/__init__.py", f"raftbed/bugs/{bugs.module_name(known[0])}.py"}
    assert with_bug.hash != without.hash


async def test_a_bundle_is_pushed_once_and_its_code_can_be_imported(host):
    first = await deploy.deploy(host)
    second = await deploy.deploy(host)
    assert (first.was_present, second.was_present) == (False, True)
    command = [*first.python, "-S", "-c", "import raftbed; print(raftbed.__file__)"]
    ran = subprocess.run(command, env=first.environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == f"{first.directory}/raftbed/__init__.py"
    assert first.command("raftbed.nodes", "--config", "x")[-4:] == ["-m", "raftbed.nodes", "--config", "x"]


async def test_a_bundle_damaged_on_its_way_is_refused_and_leaves_nothing(host, tmp_path):
    bundle = deploy.make_bundle()
    damaged = deploy.Bundle(bundle.hash, bundle.archive[:-20] + bytes(20))
    with pytest.raises(DeployError, match=r"here: .*damaged"):
        await deploy.deploy(host, bundle=damaged)
    assert list((tmp_path / "home/bundle").iterdir()) == []


async def test_two_deployments_at_once_agree(host):
    made = await deploy.deploy_all([host, ThisMachine(host.home)])
    assert len(made) == 1


async def test_an_old_python_is_named_with_the_remedy(host, tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\necho \'[[3, 9, 2], "x86_64", "glibc", "2.31", "cpython"]\'\n')
    old.chmod(0o755)
    host.python = str(old)
    with pytest.raises(DeployError, match=r"here: .*3\.9\.2.*apt-get install python3"):
        await deploy.deploy(host, wheelhouse=True, cache=tmp_path / "cache")


async def test_a_missing_python_is_named_with_the_remedy(host, tmp_path):
    missing = tmp_path / "python"
    missing.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    missing.chmod(0o755)
    host.python = str(missing)
    with pytest.raises(DeployError, match=r"no usable .*broken.*apt-get install python3"):
        await deploy.deploy(host, wheelhouse=True, cache=tmp_path / "cache")


def test_platforms_are_the_machines_own_and_older():
    glibc = wheelhouse.Interpreter((3, 11, 2), "x86_64", "glibc", (2, 36)).platforms
    assert glibc[0] == "manylinux_2_36_x86_64"
    assert "manylinux2014_x86_64" in glibc
    assert "manylinux_2_37_x86_64" not in glibc
    assert wheelhouse.Interpreter((3, 12, 0), "aarch64", "musl", (1, 2)).platforms[0] == "musllinux_1_2_aarch64"


def test_wheels_are_merged_without_scripts_and_without_escaping(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        for name in ("x/__init__.py", "x-1.data/platlib/x/c.so", "x-1.data/scripts/run", "../evil.py"):
            wheel.writestr(name, name)
    assert sorted(wheelhouse._merge_wheels([tmp_path / "x.whl"])) == ["x/__init__.py", "x/c.so"]


def test_what_nodes_import_is_pinned_to_what_is_installed_here():
    wanted = wheelhouse.node_requirements()
    assert any(requirement.startswith("aiohttp==") for requirement in wanted)
    assert not [requirement for requirement in wanted if requirement.startswith(("raftbed", "asyncssh"))]


def test_a_download_that_fails_says_why_and_what_to_do(tmp_path, monkeypatch):
    pip = tmp_path / "python"
    pip.write_text("#!/bin/sh\necho 'No matching distribution found for aiohttp' >&2; exit 1\n")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(pip))
    interpreter = wheelhouse.Interpreter((3, 15, 0), "x86_64", "glibc", (2, 36))
    with pytest.raises(DeployError, match=r"n3: .*Python 3\.15 on x86_64.*No matching.*package index"):
        wheelhouse._download("n3", interpreter, ["aiohttp==1"], tmp_path)


def test_a_host_that_is_like_this_machine_gets_what_is_installed_here(tmp_path):
    here = wheelhouse.own_interpreter()
    assert here.runs_what_runs_here
    name, path = wheelhouse.make_wheelhouse("n1", here, tmp_path / "cache")
    with tarfile.open(path) as tar:
        packed = tar.getnames()
    assert {"aiohttp/__init__.py", "msgspec/__init__.py", "multidict/__init__.py"} <= set(packed)  # and what they need
    assert not [member for member in packed if ".." in member or "__pycache__" in member or "asyncssh" in member]
    assert wheelhouse.make_wheelhouse("n2", here, tmp_path / "cache") == (name, path)


@pytest.mark.parametrize(
    "other",
    [
        wheelhouse.Interpreter((3, 13, 1), "x86_64", "glibc", (2, 41)),
        wheelhouse.Interpreter((3, 11, 2), "aarch64", "glibc", (2, 36)),
        wheelhouse.Interpreter((3, 12, 0), "x86_64", "musl", (1, 2)),
        wheelhouse.Interpreter((*sys.version_info[:2], 0), "x86_64", "glibc", (2, 6)),
    ],
    ids=["python", "machine", "library", "older-library"],
)
async def test_a_host_that_is_not_gets_wheels_that_fit_it(tmp_path, monkeypatch, host, other):
    if other.machine == "x86_64" and wheelhouse.own_interpreter().machine != "x86_64":
        pytest.skip("this machine is of another kind than the test's")
    assert not other.runs_what_runs_here
    asked = tmp_path / "asked"
    pip = tmp_path / "pip"
    pip.write_text(f"#!/bin/sh\necho \"$@\" > {asked}; echo 'No matching distribution found' >&2; exit 1\n")
    pip.chmod(0o755)
    python = tmp_path / "python3"
    answer = [list(other.version), other.machine, other.libc, ".".join(map(str, other.libc_version)), "cpython"]
    python.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    python.chmod(0o755)
    host.python = str(python)
    monkeypatch.setattr(sys, "executable", str(pip))
    version = f"{other.version[0]}.{other.version[1]}"
    where = rf"here: no wheelhouse for Python {version} on {other.machine} \({other.libc}\) could be made: No matching"
    with pytest.raises(DeployError, match=where + r".* Give the host the same Python as here"):
        await deploy.deploy(host, wheelhouse=True, cache=tmp_path / "cache")
    assert f"--python-version {version} " in asked.read_text()
    assert f"--platform {other.platforms[0]} " in asked.read_text()
