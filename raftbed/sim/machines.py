"""Who holds a simulated machine or its process down: it comes back when the last of its owners lets go."""

from __future__ import annotations

from collections.abc import Mapping

from raftbed.sim.replies import Node


class Machines:
    """Kills and power failures with owners, and the restarts that follow.

    Parameters:
        nodes: by name.
    """

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self._killed: dict[str, dict[str, None]] = {name: {} for name in nodes}
        self._unpowered: dict[str, dict[str, None]] = {name: {} for name in nodes}
        self._paused: dict[str, dict[str, None]] = {name: {} for name in nodes}
        self._full: dict[str, dict[str, None]] = {name: {} for name in nodes}
        self._broken: dict[str, dict[str, None]] = {name: {} for name in nodes}

    def kill(self, name: str, owner: str) -> None:
        """SIGKILL, and no restart while `owner` holds it."""
        self._killed[name][owner] = None
        self.nodes[name].kill()

    def fail_power(self, name: str, owner: str) -> Mapping[str, int]:
        """The machine goes dark, as long as `owner` holds it; returns what its files lost, in bytes."""
        self._unpowered[name][owner] = None
        return self.nodes[name].fail_power()

    def hold_down(self, name: str, owner: str) -> None:
        """No restart while `owner` holds it; what ends its process is somebody else's."""
        self._killed[name][owner] = None

    def pause(self, name: str, owner: str) -> None:
        """SIGSTOP, as long as `owner` holds it."""
        self._paused[name][owner] = None
        self.nodes[name].pause()

    def fill_disk(self, name: str, owner: str) -> None:
        """Nothing more fits on the disk."""
        self._full[name][owner] = None
        self._set_disk(name)

    def break_disk(self, name: str, owner: str) -> None:
        """Nothing can be read, written or synced."""
        self._broken[name][owner] = None
        self._set_disk(name)

    def let_go(self, name: str, owner: str) -> bool:
        """End all that `owner` does to a machine; True when its process runs again, or still."""
        node = self.nodes[name]
        for held in (self._killed, self._unpowered, self._paused, self._full, self._broken):
            held[name].pop(owner, None)
        self._set_disk(name)
        node.powered = not self._unpowered[name]
        if not self._paused[name]:
            node.resume()
        if not self.is_held_down(name):
            node.start()
        return node.running

    def _set_disk(self, name: str) -> None:
        self.nodes[name].set_disk(full=bool(self._full[name]), broken=bool(self._broken[name]))

    def is_held_down(self, name: str) -> bool:
        """A fault keeps its process from running."""
        return bool(self._killed[name] or self._unpowered[name])

    def is_excused(self, name: str) -> bool:
        """A fault is reason enough for its process to end by itself."""
        return bool(self._full[name] or self._broken[name])

    def restart_dead(self) -> None:
        """Start every process that is gone and that no fault holds down."""
        for name, node in self.nodes.items():
            if not self.is_held_down(name):
                node.start()
