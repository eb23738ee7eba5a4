"""A thread that makes blocking calls for the event loop, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

Done = Callable[[Any, Exception | None], None]
"""Is told what came of a call: its result, or what it raised."""


class StorageWorker(Protocol):
    """Makes blocking calls one after the other, beside the event loop."""

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        """Have `function` called; then `done`, in the event loop, with its result, or with what it raised."""
        ...

    def end(self) -> None:
        """No more calls after those that were asked for."""
        ...


Workers = Callable[[asyncio.AbstractEventLoop, str], StorageWorker]
"""Makes a worker with a name for an event loop."""


class StorageThread:
    """Makes calls one after the other in a thread of its own, and says in the event loop what came of them.

    Parameters:
        loop: where.
        name: of the thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._calls: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...], Done] | None] = SimpleQueue()
        # A daemon: a process that ends without shutdown is a crash to this node, which it must survive anyway.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        """Have `function` called; then `done` with its result, or with what it raised."""
        self._calls.put((function, arguments, done))

    def end(self) -> None:
        """No more calls after those that were asked for."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, arguments, done = call
            result, failure = None, None
            try:
                result = function(*arguments)
            except Exception as error:
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(done, result, failure)
            del call, function, arguments, done, result, failure  # hold on to nothing while waiting
