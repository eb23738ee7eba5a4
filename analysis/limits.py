"""Run a function in a process of its own that is stopped at a limit of time or memory.

A checker may need time and memory that grow exponentially with its input. It therefore runs in a child process,
which the kernel and the parent can stop for certain; what the child had told before then is not lost.

The child is forked where that is safe (a parent with a single thread), which takes some milliseconds and copies
nothing; else it is spawned, and function, arguments and answers travel pickled.

Three guards stand behind each other: the function's own budget, if it has one (it ends cleanly); RLIMIT_AS in the
child (allocations fail with MemoryError) and RLIMIT_CPU (in case that the parent is gone); and the parent, which
watches clock and resident memory and kills.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import resource
import signal
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final, Literal

Limit = Literal["time", "memory"]
Send = Callable[[Any], None]
"""Given to the function that runs in the child: sends a picklable object to the parent, at once."""

_POLL: Final = 0.05
_GRACE: Final = 1.0
_END_WITHIN: Final = 10.0
_MEMORY_SLACK: Final = 1.1
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class ChildFailedError(RuntimeError):
    """The child ended without an answer for a reason other than a limit; says with which exit status or exception."""


@dataclass(frozen=True, slots=True)
class Limited:
    """What came of it.

    Attributes:
        value: what the function returned; None when it was stopped.
        hit: the limit at which it was stopped; None when it came to its end.
    """

    value: Any
    hit: Limit | None


def run_limited(
    function: Callable[..., Any],
    *arguments: Any,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    receive: Callable[[Any], None] | None = None,
    start: Literal["fork", "spawn"] | None = None,
) -> Limited:
    """Call ``function(send, *arguments)`` in a child process.

    Parameters:
        function: defined at the top level of a module, so that a spawned child can import it.
        arguments: picklable, for the same reason.
        time_limit: seconds after which the child is killed (one more is granted, for a function that ends by
            itself at its limit); None for none.
        memory_limit: bytes of memory that the child may take beyond what it starts with; None for none.
        receive: called in this process with each object that the child sends, in order.
        start: how to make the child; None chooses.

    Raises:
        Exception: what the function raised, with the child's traceback as a note.
        ChildFailedError: the child died of something else.
    """
    method = start or ("fork" if threading.active_count() == 1 else "spawn")
    context = multiprocessing.get_context("fork") if method == "fork" else multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    task = (theirs, function, arguments, time_limit, memory_limit)
    child = context.Process(target=_child, args=task, name="raftbed-check", daemon=True)
    child.start()
    theirs.close()
    try:
        return _Parent(child, ours, time_limit, memory_limit, receive).run()
    finally:
        if child.is_alive():
            child.kill()
        child.join()
        child.close()
        ours.close()


class _Parent:
    """Receives what the child sends, and watches it."""

    def __init__(
        self,
        child: BaseProcess,
        connection: Connection,
        time_limit: float | None,
        memory_limit: int | None,
        receive: Callable[[Any], None] | None,
    ) -> None:
        self._child = child
        self._connection = connection
        self._deadline = None if time_limit is None else time.monotonic() + time_limit + _GRACE
        started_with = _resident(child.pid)
        self._memory = None if memory_limit is None else started_with + int(memory_limit * _MEMORY_SLACK)
        self._receive = receive

    def run(self) -> Limited:
        while True:
            hit = self._limit_hit()
            if hit is not None:
                self._child.kill()
            if self._connection.poll(0 if hit else _POLL):
                try:
                    kind, value = self._connection.recv()
                except (EOFError, OSError, pickle.UnpicklingError):  # cut off, maybe in the middle
                    return self._died(hit)
                if kind == "sent":
                    if self._receive is not None:
                        self._receive(value)
                    continue
                return _answer(kind, value)
            if hit is not None:
                return Limited(None, hit)

    def _limit_hit(self) -> Limit | None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            return "time"
        if self._memory is not None and _resident(self._child.pid) > self._memory:
            return "memory"
        return None

    def _died(self, hit: Limit | None) -> Limited:
        self._child.join(_END_WITHIN)
        status = self._child.exitcode
        if hit is not None:
            return Limited(None, hit)
        if status == -signal.SIGXCPU:
            return Limited(None, "time")
        if status == -signal.SIGKILL:
            return Limited(None, "memory")  # not by us: the kernel, because the machine ran out of memory
        raise ChildFailedError(f"The process that ran the check ended with status {status} and no answer.")


def _answer(kind: str, value: Any) -> Limited:
    if kind == "returned":
        return Limited(value, None)
    if kind == "memory":
        return Limited(None, "memory")
    error, trace = value
    if not isinstance(error, Exception):
        raise ChildFailedError(f"The check failed: {trace}")
    error.add_note(f"In the process that ran the check:\n{trace}")
    raise error


def _resident(pid: int | None) -> int:
    """Bytes that a process has in memory; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as stream:
            return int(stream.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _set_limits(time_limit: float | None, memory_limit: int | None) -> None:
    if memory_limit is not None:
        with open("/proc/self/statm", "rb") as stream:
            present = int(stream.read().split()[0]) * _PAGE
        _lower(resource.RLIMIT_AS, present + memory_limit)
    if time_limit is not None:
        _lower(resource.RLIMIT_CPU, int(time_limit + 5 * _GRACE) + 1)


def _lower(limit: int, value: int) -> None:
    _soft, hard = resource.getrlimit(limit)
    ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(limit, (ceiling, hard))


def _child(
    connection: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    time_limit: float | None,
    memory_limit: int | None,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent decides what it means
    gc.disable()  # short-lived, and bounded anyway; a collection would copy every page shared with the parent
    answer: tuple[str, Any]
    try:
        _set_limits(time_limit, memory_limit)
        answer = ("returned", function(lambda message: connection.send(("sent", message)), *arguments))
    except MemoryError:
        answer = ("memory", None)
    except Exception as error:  # whatever it is, it is the parent's to handle
        answer = ("raised", (error, traceback.format_exc()))
    try:
        connection.send(answer)
    except MemoryError:
        connection.send(("memory", None))
    except Exception:  # the error or the result cannot be pickled; its text can
        connection.send(("raised", (None, traceback.format_exc())))
    connection.close()
