"""Starting programs on the controller's machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

_PATIENCE_WITH_PIPES = 5.0
"""Seconds for the pipes of a program that was killed to be closed."""


async def start_program(*argv: str | os.PathLike[str], **options: Any) -> asyncio.subprocess.Process:
    """Start a program in a session of its own, so that Ctrl-C at the terminal is the controller's to handle.

    Who is cancelled while it starts waits for the start, and the program is ended. asyncio alone would leave the pipes
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
        await _see_the_end_of(starting)
        if not starting.cancelled() and starting.exception() is None:
            await _see_the_end_of(asyncio.ensure_future(end_program(starting.result())))
        raise


async def _see_the_end_of(task: asyncio.Future[Any]) -> None:
    """Wait for what takes but a moment; to be cancelled once, before, is enough."""
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])


async def end_program(process: asyncio.subprocess.Process) -> None:
    """Kill a program of `start_program` that has not ended, and wait until it is gone and its pipes are closed.

    Pipes that are open when the event loop closes would make Python print a traceback later, at any moment.
    """
    kill_program(process)
    with contextlib.suppress(TimeoutError):  # something that it started may hold them, in a session of its own
        async with asyncio.timeout(_PATIENCE_WITH_PIPES):
            await process.communicate(b"" if process.stdin is not None else None)


def kill_program(process: asyncio.subprocess.Process) -> None:
    """Kill a program of `start_program` that has not ended, with all that it started in its session."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
