"""What a client may ask of a node, checked before anything happens: bodies, keys, sessions, time-outs."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from raftbed.nodes.problems import bad_request

TIMEOUT_HEADER = "X-Raftbed-Timeout"
MAX_KEY = 1024
MAX_DEPTH = 64
DEFAULT_TIMEOUT = 5.0
_T = TypeVar("_T")


class PutBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a put."""

    value: Any
    client: str | None = None
    serial: int | None = None


class CasBody(msgspec.Struct, forbid_unknown_fields=True):
    """Body of a compare-and-set."""

    old: Any
    new: Any
    client: str | None = None
    serial: int | None = None


def decode_body(raw: bytes, kind: type[_T]) -> _T:
    """The body as it should be.

    Raises:
        Problem: it is not; says where.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"The body is not as it should be: {error}.") from error


def check_key(key: str) -> str:
    """The key, if it is short enough.

    Raises:
        Problem: it is not.
    """
    if len(key) > MAX_KEY:
        raise bad_request(f"The key has {len(key)} characters; at most {MAX_KEY} are allowed.")
    return key


def check_value(name: str, value: Any, depth: int = 1) -> None:
    """Refuse what the log could not carry, before it gets there.

    Raises:
        Problem: it is nested too deep, or holds a number that is too large.
    """
    if isinstance(value, (list, dict)):
        if depth > MAX_DEPTH:
            raise bad_request(f"{name}: is nested deeper than {MAX_DEPTH} levels.")
        for item in value.values() if isinstance(value, dict) else value:
            check_value(name, item, depth + 1)
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        raise bad_request(f"{name}: holds a whole number beyond 64 bits; write it as a string.")


def session_of(body: PutBody | CasBody) -> dict[str, Any]:
    """The fields of the command by which it is done once; none where the client did not ask for that.

    Raises:
        Problem: only one is given, or one cannot be.
    """
    if body.client is None and body.serial is None:
        return {}
    if body.client is None or body.serial is None:
        raise bad_request("client and serial: give both, or neither.")
    if not 0 < len(body.client) <= 256:
        raise bad_request("client: must be a name of 1 to 256 characters.")
    if not 1 <= body.serial < 1 << 63:
        raise bad_request("serial: must be a whole number from 1 to 2^63 - 1.")
    return {"client": body.client, "serial": body.serial}


def timeout_of(given: str | None) -> float:
    """Seconds that the client waits, from the text of its header.

    Raises:
        Problem: it is not a number of seconds.
    """
    if given is None:
        return DEFAULT_TIMEOUT
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 3600:
        raise bad_request(f"{TIMEOUT_HEADER}: must be seconds, more than 0 and at most 3600.")
    return seconds
