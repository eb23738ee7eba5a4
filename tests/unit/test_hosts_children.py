"""Programs that the controller starts (raftbed/hosts/children.py): whoever is cancelled meanwhile goes on."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from raftbed.hosts.children import end_program, kill_program, start_program

PIPE = asyncio.subprocess.PIPE


def children() -> set[str]:
    """Processes that this one has started and not seen end."""
    return set(Path("/proc/thread-self/children").read_text().split())


def is_running(pid: int) -> bool:
    """There is such a process, and it has not ended."""
    try:
        return "\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@contextmanager
def all_pipes_are_closed() -> Iterator[None]:
    """At the end of the test, that is: what is open when its loop closes breaks some later test, at any moment."""
    gc.collect()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(one.message) for one in said if issubclass(one.category, ResourceWarning)] == []


@pytest.mark.parametrize("again", [None, 0, 1, 2, 3])
@pytest.mark.parametrize("turns", range(6))
async def test_a_start_that_is_cancelled_ends_and_leaves_nothing(turns: int, again: int | None) -> None:
    before = children()
    with all_pipes_are_closed():
        await start_and_cancel(turns, again)
        assert children() <= before


async def start_and_cancel(turns: int, again: int | None) -> None:
    starting = asyncio.ensure_future(start_program("sh", "-c", "cat; true", stdin=PIPE, stdout=PIPE, stderr=PIPE))
    for _ in range(turns):
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(time.sleep, 0.05)  # a busy loop: the program has begun, and nobody noticed
    await asyncio.sleep(0)
    starting.cancel()
    for _ in range(again or 0):
        await asyncio.sleep(0)
    if again is not None:  # by Ctrl-C, say, after a time-out
        starting.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait([starting])
        if not starting.cancelled():
            await end_program(await starting)


@pytest.mark.parametrize("turns", range(1, 5))
async def test_who_is_cancelled_is_cancelled_though_there_is_no_such_program(turns: int) -> None:
    starting = asyncio.ensure_future(start_program("/nowhere/program"))
    for _ in range(turns):
        await asyncio.sleep(0)
    was_under_way = starting.cancel()
    await asyncio.wait([starting])
    assert starting.cancelled() or not was_under_way


async def test_a_program_that_cannot_be_started_says_why() -> None:
    with pytest.raises(FileNotFoundError):
        await start_program("/nowhere/program")


async def test_a_program_is_killed_with_what_it_started() -> None:
    shell = await start_program("sh", "-c", "sleep 1000 & echo $!; wait", stdout=PIPE)
    assert shell.stdout is not None
    started = int(await shell.stdout.readline())
    kill_program(shell)
    assert await shell.wait() == -9
    async with asyncio.timeout(20):
        while is_running(started):
            await asyncio.sleep(0.01)
    kill_program(shell)  # again: nothing happens
