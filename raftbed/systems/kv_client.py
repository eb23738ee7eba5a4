"""The HTTP client of the nodes' key-value API, with every error classed by what it says about the operation's fate.

| what happened                                   | read    | write, compare-and-set |
| ----------------------------------------------- | ------- | ---------------------- |
| could not connect                               | refused | refused                |
| an error that the node calls definite           | refused | refused                |
| "precondition-failed"                           | -       | rejected               |
| an error that the node does not call definite   | lost    | lost                   |
| connection reset, time-out, unreadable answer   | lost    | lost                   |

aiohttp sends a request again by itself when a kept connection turns out to be dead, but only for idempotent methods:
that is harmless for reads (GET), and cannot happen to writes (POST).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from raftbed.workloads.base import Answer, Request

if TYPE_CHECKING:
    import aiohttp


class KeyValueConnection:
    """Implements :class:`raftbed.clients.Connection` over HTTP.

    Parameters:
        sessions: node name to the session that reaches it; shared by all workers.
        addresses: node name to "host:port".
    """

    def __init__(self, sessions: Mapping[str, aiohttp.ClientSession], addresses: Mapping[str, str]) -> None:
        self._sessions = sessions
        self._addresses = addresses

    async def attempt(
        self, node: str, request: Request, *, client: str, serial: int, timeout: float, patience: float | None = None
    ) -> Answer:
        """See :class:`raftbed.clients.Connection`.

        `patience`: seconds after which the node is to answer that it had no answer; `timeout`, when not given.
        """
        import aiohttp

        method, path, body = _as_http(request, client, serial)
        url = f"http://{self._addresses[node]}{path}"
        try:
            async with self._sessions[node].request(
                method,
                url,
                data=msgspec.json.encode(body) if body is not None else None,
                headers={"Content-Type": "application/json", "X-Raftbed-Timeout": f"{patience or timeout:.3f}"},
                timeout=aiohttp.ClientTimeout(total=timeout),
                allow_redirects=False,
            ) as response:
                return _classify(node, request, response.status, await response.read())
        except aiohttp.ClientConnectorError as error:
            return Answer("refused", code="connection-refused", message=str(error.os_error or error))
        except TimeoutError:
            # Sending may not have begun, but nobody can tell from here.
            return Answer("lost", code="timeout", message=f"no answer from {node} within {timeout:.2f} s")
        except aiohttp.ClientError as error:
            return Answer("lost", code="connection-lost", message=f"{node}: {type(error).__name__}: {error}")
        except OSError as error:
            return Answer("lost", code="connection-lost", message=f"{node}: {error}")


def _as_http(request: Request, client: str, serial: int) -> tuple[str, str, dict[str, Any] | None]:
    path = f"/kv/{quote(str(request.key), safe='')}"
    if request.f == "read":
        return "GET", path, None
    if request.f == "write":
        return "POST", f"{path}/put", {"value": request.value, "client": client, "serial": serial}
    if request.f == "cas":
        old, new = request.value
        return "POST", f"{path}/cas", {"old": old, "new": new, "client": client, "serial": serial}
    raise AssertionError(f"the key-value API has no operation {request.f!r}")


def _classify(node: str, request: Request, status: int, body: bytes) -> Answer:
    try:
        content = msgspec.json.decode(body)
    except msgspec.DecodeError:
        content = None
    if not isinstance(content, dict):
        return Answer("lost", code="unreadable-answer", message=f"{node} answered {status} without JSON", node=node)
    if status == 200:
        if "value" not in content:
            return Answer("lost", code="unreadable-answer", message=f"{node} answered without a value", node=node)
        return Answer("ok", value=content["value"], node=str(content.get("node", node)))
    return fate_of_problem(node, request, status, content)


def fate_of_problem(node: str, request: Request, status: int, content: Mapping[str, Any]) -> Answer:
    """What a node's answer other than success says about the operation.

    Parameters:
        node: who answered.
        request: what was asked.
        status: of HTTP.
        content: the answer's fields (docs/node.md).
    """
    code, message = str(content.get("error", f"http-{status}")), str(content.get("message", ""))
    leader = content.get("leader")
    if code == "precondition-failed" and not request.is_read:
        return Answer("rejected", value=content.get("current"), code=code, message=message, node=node)
    fate = "refused" if content.get("definite") is True else "lost"
    return Answer(
        fate,  # type: ignore[arg-type]  # one of the two literals above
        code=code,
        message=message,
        node=node,
        leader=leader if isinstance(leader, str) else None,
    )
