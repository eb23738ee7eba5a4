"""The faults that only whole nodes know: of connections, of impatient clients, of a shutdown under load."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from raftbed.sim.faults import Found, Kind, Nemesis, Strike, on_machines
from raftbed.sim.network import Link
from raftbed.sim.replies import Node
from raftbed.sim.shell.clients import Clients, Manner
from raftbed.sim.shell.node import ShellNode
from raftbed.sim.shell.streams import CLIENTS, Streams

_RESETS = (20_000_000, 300_000_000)  # nanoseconds between two
_MOST_RESETS = 200


def _reset(nemesis: Nemesis, strike: Strike) -> Found:
    _streams(nemesis).resets[strike.step.id] = 0
    _reset_again(nemesis, strike)
    return strike.targets, {"mechanism": "simulated"}


def _reset_again(nemesis: Nemesis, strike: Strike) -> None:
    """Reset some connections of each node that was picked, and come again."""
    streams, owner = _streams(nemesis), strike.step.id
    if owner not in streams.resets:
        return
    for name in strike.targets:
        for endpoint in streams.connections(name):
            if strike.random.random() < 0.5:
                streams.resets[owner] += 1
                endpoint.peer.reset()
                endpoint.reset()
    if streams.resets[owner] < _MOST_RESETS:
        nemesis.timeline.after(strike.random.randint(*_RESETS), _reset_again, nemesis, strike)


def _reset_no_more(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    return {"met": _streams(nemesis).resets.pop(strike.step.id)}


def _terminate(nemesis: Nemesis, strike: Strike, name: str) -> None:
    nemesis.machines.hold_down(name, strike.step.id)
    cast(ShellNode, nemesis.nodes[name]).stop()


def _stops(node: Node) -> bool:
    return not node.running or cast(ShellNode, node).stopping


def _hang_up(nemesis: Nemesis, strike: Strike) -> Found:
    clients = _clients(nemesis)
    return _have_some(clients, clients.impatience, strike, (0.2, 0.9))


def _wait_again(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    clients = _clients(nemesis)
    return _have_none(clients, clients.impatience, strike)


def _hurry(nemesis: Nemesis, strike: Strike) -> Found:
    clients = _clients(nemesis)
    return _have_some(clients, clients.haste, strike, (0.3, 1.0))


def _hurry_no_more(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    clients = _clients(nemesis)
    return _have_none(clients, clients.haste, strike)


def _have_some(clients: Clients, manner: Manner, strike: Strike, shares: tuple[float, float]) -> Found:
    """Have a share of the attempts at the targets made in a manner."""
    share = round(strike.random.uniform(*shares), 2)
    manner[strike.step.id] = (strike.targets, share)
    clients.met[strike.step.id] = 0
    return strike.targets, {"share": share, "mechanism": "simulated"}


def _have_none(clients: Clients, manner: Manner, strike: Strike) -> Mapping[str, Any]:
    """No more of them for this strike."""
    del manner[strike.step.id]
    return {"met": clients.met.pop(strike.step.id)}


def _slow_down(nemesis: Nemesis, strike: Strike) -> Found:
    share, most = round(strike.random.uniform(0.05, 0.5), 2), strike.random.choice((20, 200, 800)) * 1_000_000
    for link in _client_links(nemesis, strike):
        link.loss[strike.step.id] = share
        link.delay[strike.step.id] = (0, most, 1.0)
        link.changed()
    return strike.targets, {"share": share, "delay": (0, most), "mechanism": "simulated"}


def _speed_up(nemesis: Nemesis, strike: Strike) -> Mapping[str, Any]:
    met = 0
    for link in _client_links(nemesis, strike):
        del link.loss[strike.step.id], link.delay[strike.step.id]
        met += link.met.pop(strike.step.id, 0)
        link.changed()
    return {"met": met}


def _client_links(nemesis: Nemesis, strike: Strike) -> list[Link]:
    streams = _streams(nemesis)
    return [streams.way(*ends) for node in strike.targets for ends in ((CLIENTS, node), (node, CLIENTS))]


def _streams(nemesis: Nemesis) -> Streams:
    return cast(Streams, nemesis.network)


def _clients(nemesis: Nemesis) -> Clients:
    return cast(ShellNode, next(iter(nemesis.nodes.values()))).clients


_TERMINATE = on_machines(_terminate, _stops, "told")

SHELL_KINDS: Mapping[str, Kind] = {
    "reset": Kind(_reset, _reset_no_more, lambda n, s: {"resets": _streams(n).resets[s.step.id]}),
    "hang-up": Kind(_hang_up, _wait_again, lambda n, s: {"impatient": s.step.id in _clients(n).impatience}),
    "hasty-clients": Kind(_hurry, _hurry_no_more, lambda n, s: {"hasty": s.step.id in _clients(n).haste}),
    "slow-clients": Kind(_slow_down, _speed_up, lambda n, s: {"links": len(_client_links(n, s))}),
    "terminate": _TERMINATE,
}
"""Every kind of fault that whole nodes have besides those of the simulator."""
