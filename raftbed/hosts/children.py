"""Starting programs on the controller's machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any


async def start_program(*argv: str | os.PathLike[str], **options: Any) -> asyncio.subprocess.Process:
    """Start a program in a session of its own, so that Ctrl-C at the terminal is the controller's to handle.

    Who is cancelled while it starts waits for the start, and the program is killed. asyncio alone would leave the pipes
    of a half-started process open, and then wait for ever that they are closed.

    Parameters:
        argv: never read by a shell.
        options: as for `asyncio.create_subprocess_exec`.

    Raises:
        OSError: it cannot be started.
    """
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*argv, start_new_session=True, **options))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        while not starting.done():
            with contextlib.suppress(asyncio.CancelledError, OSError):  # once is enough, and it takes but a moment
                await asyncio.shield(starting)
        if not starting.cancelled() and starting.exception() is None:
            kill_program(starting.result())
        raise


def kill_program(process: asyncio.subprocess.Process) -> None:
    """Kill a program of `start_program` that has not ended, with all that it started in its session."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
