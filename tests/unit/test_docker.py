"""Which container engine is taken, and what is said when none can be; the recipes of the image agree."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from raftbed.errors import HostError
from raftbed.hosts import docker, engine
from raftbed.hosts.engine import CHOICE, REACHING, find_engine

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH that holds nothing but what the test puts there: a shell script by name."""
    monkeypatch.setattr(engine, "find_program", lambda name: str(tmp_path / name) if (tmp_path / name).exists() else "")
    for name in (CHOICE, *REACHING):
        monkeypatch.delenv(name, raising=False)

    def put(name: str, *, info: dict | None = None, version: str = "Docker version 20.10", fails: str = "") -> None:
        ending = f"echo '{fails}' >&2; exit 1" if fails else f"echo '{json.dumps(info or {})}'"
        script = f"#!/bin/sh\ncase $1 in --version) echo '{version}' ;; info) {ending} ;; esac\n"
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)

    return put


DOCKER = {"ServerVersion": "20.10.24", "SecurityOptions": ["name=seccomp,profile=default"]}
PODMAN = {"version": {"Version": "4.3.1"}, "host": {"security": {"rootless": False}}}


def test_docker_is_taken_before_podman(programs):
    programs("docker", info=DOCKER)
    programs("podman", info=PODMAN, version="podman version 4.3.1")
    found = asyncio.run(find_engine())
    assert (found.kind, found.version) == ("docker", "20.10.24")


def test_podman_is_taken_where_docker_does_not_answer(programs):
    programs("docker", fails="Cannot connect to the Docker daemon")
    programs("podman", info=PODMAN, version="podman version 4.3.1")
    found = asyncio.run(find_engine())
    assert (found.kind, found.version) == ("podman", "4.3.1")


def test_podman_is_known_under_dockers_name(programs):
    programs("docker", info=PODMAN, version="podman version 4.3.1")
    assert asyncio.run(find_engine()).kind == "podman"


def test_the_choice_of_the_user_counts(programs, monkeypatch):
    programs("docker", info=DOCKER)
    programs("podman", info=PODMAN, version="podman version 4.3.1")
    monkeypatch.setenv(CHOICE, "podman")
    assert asyncio.run(find_engine()).kind == "podman"


def test_the_way_to_the_engine_is_remembered(programs, monkeypatch):
    programs("docker", info=DOCKER)
    monkeypatch.setenv("DOCKER_HOST", "unix:///somewhere")
    assert asyncio.run(find_engine()).environment == {"DOCKER_HOST": "unix:///somewhere"}


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ({}, "neither is installed. Install one: apt-get install docker.io"),
        (
            {"docker": {"fails": "Cannot connect to the Docker daemon at unix:///var/run/docker.sock."}},
            "no engine answers: Cannot connect .* Start it: sudo systemctl start docker",
        ),
        (
            {"docker": {"info": {"ServerErrors": ["Cannot connect to the Docker daemon."]}}},
            "no engine answers: Cannot connect",
        ),
        (
            {"docker": {"fails": "permission denied while trying to connect to the socket"}},
            "is not open to this user: .* usermod -aG docker",
        ),
        (
            {"docker": {"info": {**DOCKER, "SecurityOptions": ["name=rootless"]}}},
            "runs without root: the addresses of its containers cannot be reached from here. Use the docker of root",
        ),
        (
            {"podman": {"info": {**PODMAN, "host": {"security": {"rootless": True}}}, "version": "podman version 4"}},
            "this podman runs without root",
        ),
    ],
    ids=["none", "asleep", "asleep-but-polite", "closed", "rootless-docker", "rootless-podman"],
)
def test_what_is_missing_is_named_with_its_remedy(programs, installed, message):
    for name, options in installed.items():
        programs(name, **options)
    with pytest.raises(HostError, match=message):
        asyncio.run(find_engine())


def test_an_engine_that_does_not_end_is_ended(programs, tmp_path):
    (tmp_path / "docker").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "docker").chmod(0o755)
    slow = engine.Engine(str(tmp_path / "docker"), "docker")
    with pytest.raises(HostError, match="did not end within"):
        asyncio.run(slow.call("info", timeout=0.1))


def test_all_recipes_make_the_same_image():
    dockerfile, make, compose = (ROOT / "docker" / name for name in ("Dockerfile", "make-image", "compose.yaml"))
    for recipe in (dockerfile, make, compose):
        assert set(re.findall(r"raftbed-host:\w+", recipe.read_text())) == {docker.IMAGE}
    assert docker.recipe() == dockerfile.read_bytes()
    assert os.access(make, os.X_OK)
    # make-image takes its packages out of the Dockerfile.
    pattern = re.search(r"sed -n '(s/.*?/p)'", make.read_text())
    assert pattern is not None
    taken = subprocess.run(["sed", "-n", pattern[1], dockerfile], capture_output=True, text=True, check=True).stdout
    assert taken.split() == ["openssh-server", "python3", "iproute2", "nftables", "iptables", "iputils-ping", "procps"]


def test_compose_gives_the_capabilities_that_runs_give_and_never_the_clock():
    compose = (ROOT / "docker/compose.yaml").read_text()
    given = re.search(r"cap_add: \[(.*)\]", compose)
    assert given is not None
    assert set(given[1].split(", ")) == set(docker.CAPABILITIES)
    assert "SYS_TIME" not in docker.CAPABILITIES
    assert "privileged: true" not in compose


def test_nothing_but_the_recipe_gets_into_a_build():
    assert [line for line in (ROOT / "docker/.dockerignore").read_text().splitlines() if line[:1] != "#"] == ["*"]
    assert not re.search(r"^(COPY|ADD)\b", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
