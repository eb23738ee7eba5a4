"""As root: the contract of hosts and a cluster to play with once more, as an ordinary user made for the test.

Everything that the user runs (interpreter, packages, source) lies below his private home directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest

import raftbed
import raftbed.analysis
import raftbed.nodes
import raftbed.workloads

pytestmark = pytest.mark.live

# What depends on who one is; the rest of that module is the same for everybody.
OF_A_CLUSTER = (
    "test_the_commands_that_up_prints_work_as_they_stand_there",
    "test_a_cluster_that_is_well_says_so_of_every_node",
    "test_a_node_that_was_stopped_is_missed_and_started_again",
    "test_plain_ssh_reaches_into_the_lab",
    "test_ssh_opens_a_session_and_ends_with_its_status",
    "test_down_leaves_nothing",
)
TESTS = Path(__file__).resolve().parent.parent


def reachable_interpreter(user: list[str]) -> str:
    """An interpreter of this version that the user may run, or ""."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    show = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in (os.path.realpath(sys.executable), f"/usr/bin/python{version}", "/usr/bin/python3"):
        # By way of a shell: setpriv itself may still reach what the user may not.
        command = [*user, "sh", "-c", 'exec "$@"', "sh", candidate, "-c", show]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
        if done.returncode == 0 and done.stdout.strip() == version:
            return candidate
    return ""


@pytest.fixture
def user():
    """The first words of a command line that runs the rest as a user of its own; his home directory."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to become another user")
    for program in ("useradd", "userdel", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program} (apt-get install passwd util-linux)")
    tree = Path(tempfile.mkdtemp(prefix="raftbed-user-", dir="/var/tmp"))
    tree.chmod(0o755)
    home = tree / "home"
    name = f"raftbed{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", "--home-dir", home, name], check=True, capture_output=True)
    try:
        home.mkdir(mode=0o700)
        shutil.chown(home, name, name)
        yield ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups"], name, home
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True)
        shutil.rmtree(tree)


def lay_out(home: Path) -> None:
    """raftbed as if installed, and its live test, below `home`."""
    ignore = shutil.ignore_patterns("__pycache__")
    package = home / "lib/raftbed"
    shutil.copytree(raftbed.__path__[0], package, ignore=ignore)
    for module in (raftbed.nodes, raftbed.analysis, raftbed.workloads):
        shutil.copytree(module.__path__[0], package / module.__name__.partition(".")[2], ignore=ignore)
    for name in ("support", "live"):
        shutil.copytree(TESTS / name, home / "tests" / name, ignore=ignore)
    shutil.copy(TESTS.parent / "pyproject.toml", home)
    (home / "site-packages").mkdir()


def test_an_ordinary_user_has_local_hosts_too(user):
    become, name, home = user
    python = reachable_interpreter(become)
    if not python:
        pytest.skip("needs a Python of this version that other users may run (apt-get install python3)")
    lay_out(home)
    subprocess.run([python, "-m", "venv", "--without-pip", home / "venv"], check=True, capture_output=True)
    paths = next((home / "venv/lib").glob("python*/site-packages")) / "paths.pth"
    paths.write_text(f"{home / 'lib'}\n{home / 'site-packages'}\n")
    for folder, _, files in os.walk(home):
        for item in (folder, *(os.path.join(folder, file) for file in files)):
            shutil.chown(item, name, name) if not os.path.islink(item) else None

    # This interpreter's packages may be closed to others: they are shown to the user by a bind mount, in a mount
    # namespace that ends with the test.
    packages = Path(asyncssh.__file__).parent.parent
    script = 'mount --bind "$1" "$2" && shift 2 && cd / && exec "$@"'
    show = ["unshare", "--mount", "sh", "-c", script, "sh", packages, home / "site-packages"]
    test = [home / "venv/bin/python", "-m", "pytest", "-q", "-x", "--durations=20", "-p", "no:cacheprovider"]
    test += ["--rootdir", home, "-c", home / "pyproject.toml", "-k", "not wheelhouse"]
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(home), "LANG": "C.UTF-8"}
    live = home / "tests/live"
    parts = [
        [live / "test_host_contract.py"],
        [
            live / "test_hosts_local.py",
            live / "test_pools_local.py",
            *(f"{live}/test_cluster.py::{name}" for name in OF_A_CLUSTER),
        ],
    ]

    def done(number: int) -> subprocess.CompletedProcess[str]:
        command = [*show, *become, *test, "--basetemp", home / f"t{number}", *parts[number]]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    # Side by side: hosts are waited for more than they work.
    with ThreadPoolExecutor() as threads:
        for ended in threads.map(done, range(len(parts))):
            print(ended.stdout[-6000:])
            assert ended.returncode == 0, ended.stdout[-6000:] + ended.stderr[-2000:]
