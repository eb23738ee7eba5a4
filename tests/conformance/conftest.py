"""Lets the tests here import `in_process`, beside them, and the core's harness in virtual time, `raft_harness`."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "unit" / "raft")]
