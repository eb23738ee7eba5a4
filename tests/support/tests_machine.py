# ruff: noqa: ASYNC240  # a test may wait for the local disk and for processes
"""This machine as a host: what needs a host but neither a network nor namespaces is tested on it."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from raftbed.errors import CommandError, HostError
from raftbed.hosts.base import CommandResult
from raftbed.hosts.children import end_program, start_program
from raftbed.hosts.prerequisites import namespace_obstacle, require_programs


def why_no_local_hosts() -> str:
    """Why this machine cannot make local hosts; "" when it can."""
    try:
        require_programs()
    except HostError as error:
        return str(error)
    obstacle = namespace_obstacle()
    return obstacle.reason if obstacle else ""


class ThisMachine:
    """A host whose commands run right here; everything that raftbed keeps lies below `home`."""

    name = "here"
    address = "127.0.0.1"
    python = sys.executable
    shares_interpreter = True

    def __init__(self, home: Path) -> None:
        self.home = str(home)
        self.puts: list[str] = []

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 10.0, check: bool = True
    ) -> CommandResult:
        pipe = asyncio.subprocess.PIPE
        process = await start_program(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
        try:
            async with asyncio.timeout(timeout):
                stdout, stderr = await process.communicate(stdin)
        finally:
            await end_program(process)
        result = CommandResult(process.returncode or 0, stdout.decode(), stderr.decode())
        if check and result.status:
            raise CommandError(host=self.name, command=shlex.join(argv), status=result.status, stderr=result.stderr)
        return result

    async def put(self, content: bytes | Path, path: str, *, mode: int = 0o644, timeout: float = 60.0) -> None:
        self.puts.append(path)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        Path(path).chmod(mode)

    async def get(self, path: str, destination: Path, *, limit: int = 256 << 20, timeout: float = 60.0) -> bool:
        if not Path(path).is_file():
            return False
        shutil.copy(path, destination)
        return True

    async def crash(self) -> None:
        raise NotImplementedError

    async def reboot(self, *, timeout: float = 30.0) -> None:
        raise NotImplementedError
