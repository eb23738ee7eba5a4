"""Doing the same to several hosts at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

from raftbed.errors import HostError, HostsError

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


async def settle(actions: Iterable[Awaitable[_T]]) -> list[_T]:
    """Run `actions` side by side, each to its end; their results, in order.

    Raises:
        HostsError: several failed; or the error of the one that did.
    """
    outcomes = await asyncio.gather(*actions, return_exceptions=True)
    results: list[_T] = []
    failures: list[HostError] = []
    for outcome in outcomes:
        if isinstance(outcome, HostError):
            failures.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            results.append(outcome)
    if failures:
        raise failures[0] if len(failures) == 1 else HostsError(failures, of=len(outcomes))
    return results
