"""A cluster on machines where one may not log in as root: an ordinary user, and the real sudo.

Everything goes through it: runs by asyncssh, the operator's commands by fabric. The machines are local hosts with an
account and rules for sudo of their own; this machine's are not touched.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests_host_kinds import kept_lab, why_no_local
from tests_inventory import inventory_through_proxy

from raftbed.hosts import make_pool
from raftbed.hosts.prerequisites import find_program

NEEDS = {"sudo": "sudo", "useradd": "passwd", "chpasswd": "passwd", "setsid": "util-linux"}
MISSING = sorted({package for program, package in NEEDS.items() if not find_program(program)})
OBSTACLE = why_no_local("root", "openssh")
pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "it can"),
    pytest.mark.skipif(bool(MISSING), reason=f"needs apt-get install {' '.join(MISSING)}"),
    pytest.mark.asyncio(loop_scope="module"),
]

RAFTBED = str(Path(sys.executable).with_name("raftbed"))
PASSWORD = "open sesame"
FREE = "ann ALL=(ALL) NOPASSWD: ALL\n"
ASKING = "ann ALL=(ALL) ALL\n"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def lab(tmp_path_factory):
    """Two hosts; on each an ordinary user, ann, with a password."""
    directory = tmp_path_factory.mktemp("sudo")
    async with kept_lab(["n1", "n2"], directory, mode="root", server="openssh") as made:
        pool = make_pool(str(inventory_through_proxy(made, directory)), ["n1", "n2"], directory)
        await pool.start()
        for host in pool.hosts.values():
            await host.run(["useradd", "--create-home", "--shell", "/bin/sh", "ann"])
            await host.run(["chpasswd"], stdin=f"ann:{PASSWORD}\n".encode())

        async def rule(text: str) -> None:
            for host in pool.hosts.values():
                await host.put(text.encode(), "/etc/sudoers", mode=0o440)

        yield made, rule
        await pool.close()


def at_a_terminal(command: list[str], cwd: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command at a terminal of its own and answer when it asks for a password; its status and all it showed."""
    ours, theirs = os.openpty()
    with subprocess.Popen(
        ["setsid", "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment
    ) as process:
        os.close(theirs)
        shown, answered = b"", False
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the last one who had the terminal is gone
                break
            shown += chunk
            if not answered and re.search(rb"assword.*: $", shown):
                os.write(ours, f"{PASSWORD}\n".encode())
                answered = True
        os.close(ours)
    return process.returncode, shown.decode()


Raftbed = Callable[..., str]


def as_user(tmp_path: Path, *, asked: bool) -> Raftbed:
    """Runs raftbed as its user does, who types the password of sudo where she is asked for it."""
    (tmp_path / "runtime").mkdir(mode=0o700)  # where no lab is known, so that hers is the only cluster
    environment = {
        **os.environ,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "XDG_RUNTIME_DIR": str(tmp_path / "runtime"),
    }

    def run(*arguments: str, expect: int = 0) -> str:
        options = ["--ask-sudo-password"] if asked else []
        first = arguments.index("--") if "--" in arguments else len(arguments)
        command = [RAFTBED, *arguments[:first], *options, *arguments[first:]]
        status, shown = at_a_terminal(command, tmp_path, environment)
        assert status == expect, shown
        assert PASSWORD not in shown
        return shown.replace("\r\n", "\n")

    return run


@pytest.mark.parametrize("asked", [False, True], ids=["without a password", "with a password"])
async def test_a_cluster_lives_its_life_through_sudo(lab, tmp_path, asked):
    directory, rule = lab
    await rule(ASKING if asked else FREE)
    file = str(inventory_through_proxy(directory, tmp_path, user="ann", sudo=True))
    raftbed = as_user(tmp_path, asked=asked)

    def life() -> None:
        assert "The cluster default is up: 2 nodes" in raftbed("cluster", "up", "--hosts", file)
        said = raftbed("cluster", "exec", "--", "sh", "-c", "echo $(id -un) for $SUDO_USER; wc -c")
        assert re.findall(r"^(n\d) \| (.*)$", said, re.MULTILINE) == [
            ("n1", "root for ann"), ("n1", "0"), ("n2", "root for ann"), ("n2", "0"),
        ]  # fmt: skip
        assert "n2  stopped (process" in raftbed("cluster", "stop", "n2")
        assert re.search(r"^n2 .* does not run", raftbed("cluster", "status", expect=1), re.MULTILINE)
        assert "n2  started (process" in raftbed("cluster", "start")
        raftbed("cluster", "deploy")
        assert " leader " in raftbed("cluster", "status")
        assert "listens on" in raftbed("cluster", "logs", "--lines", "1000")
        assert "The cluster default is gone." in raftbed("cluster", "down")

    await asyncio.to_thread(life)


async def test_a_user_whom_sudo_asks_for_a_password_that_nobody_gave_is_told_what_to_do(lab, tmp_path):
    directory, rule = lab
    await rule(ASKING)
    file = str(inventory_through_proxy(directory, tmp_path, user="ann", sudo=True))
    raftbed = as_user(tmp_path, asked=False)
    said = await asyncio.to_thread(raftbed, "cluster", "exec", "--hosts", file, "--", "true", expect=255)
    assert re.search(r"n1 \| sudo refuses 'ann': .*a password is required\.\nn1 \| Add --ask-sudo-password", said), said
