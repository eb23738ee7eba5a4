"""Places of this machine that cannot be written are named, each with what to do."""

from __future__ import annotations

import pytest

from raftbed.errors import DeployError, HostError
from raftbed.hosts import labs
from raftbed.wheelhouse import Interpreter, make_wheelhouse


def test_a_runtime_directory_that_is_a_file_is_named(monkeypatch, tmp_path):
    (tmp_path / "runtime").touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    with pytest.raises(HostError, match=r"runtime/raftbed cannot be made: Not a directory\. Set XDG_RUNTIME_DIR"):
        labs.register(tmp_path / "lab")


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_a_runtime_directory_that_takes_nothing_is_named(monkeypatch, tmp_path, error):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(HostError, match=f"raftbed cannot be made: {error.strerror}"):
        labs.open_registry()


def test_a_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "cache").touch()
    interpreter = Interpreter((3, 11, 2), "x86_64", "glibc", (2, 36))
    with pytest.raises(DeployError, match=r"^n2: the packages for it cannot be put into .*cache/raftbed: .*XDG_CACHE"):
        make_wheelhouse("n2", interpreter, tmp_path / "cache" / "raftbed")
