"""Doing the same to several hosts at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")


async def in_parallel(actions: Iterable[Awaitable[_T]]) -> list[_T]:
    """Run `actions` side by side; their results, in order.

    When one fails, the others are cancelled and the first error is raised as it is, not wrapped in a group.
    """

    async def call(action: Awaitable[_T]) -> _T:
        return await action

    started: list[Coroutine[Any, Any, _T]] = [call(action) for action in actions]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(action) for action in started]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors.exceptions[0].__cause__
    return [task.result() for task in tasks]
