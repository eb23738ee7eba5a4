"""What the processes log, each into the log of its node: the one whose event loop runs at that moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from raftbed.sim.shell.loop import VirtualLoop

_LOGGERS = ("raftbed.nodes", "asyncio", "aiohttp")

Take = Callable[[str, logging.LogRecord, str], None]
"""Takes the place where something was logged, the record, and its text."""


class _Handler(logging.Handler):
    def __init__(self, take: Take) -> None:
        super().__init__(logging.INFO)
        self._take = take
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        loop = asyncio._get_running_loop()
        if isinstance(loop, VirtualLoop) and not loop.gone:
            self._take(loop.place, record, self.format(record))


@contextmanager
def kept_apart(take: Take) -> Iterator[None]:
    """Give what is logged meanwhile to `take`, and to nobody else."""
    handler = _Handler(take)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
