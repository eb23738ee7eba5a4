"""ruff and mypy are part of the tests: a change that they refuse is not done."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str) -> None:
    ended = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_ruff_finds_nothing():
    run("-m", "ruff", "check", ".")


def test_everything_is_formatted():
    run("-m", "ruff", "format", "--check", ".")


def test_types_are_strict_and_right():
    run("tools/typecheck.py")
