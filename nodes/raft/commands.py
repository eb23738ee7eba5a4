"""Commands of the application, as the log carries them.

Theory of operation
-------------------
Every node must apply the same. What the others apply went through msgpack; so the leader's goes through it, too, before
it is appended: then a caller that changes its object later changes nothing in the log, and a tuple is a list everywhere
or nowhere. A state machine is given a copy of its own, since the log's is yet to be sent, and written: to append to a
list that came in a command is an easy mistake, by which replicas would differ without anybody noticing.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

MAX_DEPTH: Final = 200
"""Levels of lists and maps within each other. Python gives up at about a thousand, and where exactly depends on who
calls: what the leader could write, a follower must be able to read."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def as_carried(data: Any) -> tuple[Any, int]:
    """What all nodes will see of `data`: a copy, by way of msgpack, and the bytes that it takes there.

    Raises:
        TypeError, OverflowError, ValueError: msgpack cannot carry it, or it is nested too deep.
    """
    try:
        encoded = _encode(data)
        carried = _decode(encoded)
    except msgspec.MsgspecError as error:
        raise ValueError(f"msgpack cannot carry this: {error}.") from error
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if len(encoded) > MAX_DEPTH and is_too_deep(carried):  # each level takes a byte
        raise ValueError(_TOO_DEEP)
    return carried, len(encoded)


def is_too_deep(command: Any) -> bool:
    """A command that msgpack gave is nested deeper than `MAX_DEPTH` levels: no leader of ours appended it."""
    if isinstance(command, dict):
        for key, value in command.items():
            if type(key) is not str or type(value) in _NESTING:
                break
        else:
            return False  # as nearly all are
    return _is_deeper(command, MAX_DEPTH)


def copy_of(command: Any) -> Any:
    """A copy of a command that the log carries."""
    return _decode(_encode(command))


_NESTING = frozenset((dict, list, tuple))
_TOO_DEEP = f"A command may be nested {MAX_DEPTH} levels deep at most."


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        within: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                within.extend(one)
                within.extend(one.values())
            elif isinstance(one, list | tuple):  # keys of maps are tuples
                within.extend(one)
        level = [one for one in within if isinstance(one, dict | list | tuple)]
        if not level:
            return False
    return True
