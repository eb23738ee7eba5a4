"""Run mypy over the distribution under its import names.

mypy cannot follow the finder of an editable install, and the folders on disk (nodes/) are not the import names
(raftbed.nodes), so it is shown a tree of symbolic links that has the shape of an installed package.

Usage: ``python tools/typecheck.py [mypy options]``. Exits with mypy's status.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def link_tree(destination: Path) -> None:
    """Lay out links in `destination` so that it looks like site-packages with raftbed installed."""
    mapping = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    package = destination / "raftbed"
    package.mkdir()
    for item in (ROOT / mapping["raftbed"]).iterdir():
        if item.name != "__pycache__":
            (package / item.name).symlink_to(item)
    for name, folder in mapping.items():
        if "." in name:
            (package / name.partition(".")[2]).symlink_to(ROOT / folder)


def main() -> int:
    """Type-check and return mypy's exit status."""
    with tempfile.TemporaryDirectory(prefix="raftbed-typecheck-") as scratch:
        link_tree(Path(scratch))
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
        command += ["--cache-dir", str(ROOT / ".mypy_cache"), *sys.argv[1:], "-p", "raftbed"]
        return subprocess.run(command, cwd=scratch, env={**os.environ, "MYPYPATH": scratch}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
