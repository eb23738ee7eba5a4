"""A node's own clock: runs at its own speed, begins at its own moment, and can jump ahead."""

from __future__ import annotations

_PER_MILLION = 1_000_000


class NodeClock:
    """Monotonic, in nanoseconds, a straight line from the last change on; exact, in integers.

    Parameters:
        offset: what it shows at the beginning of the simulation.
        ppm: how much faster than virtual time it runs, in millionths; slower when negative.
    """

    __slots__ = ("_from", "_shown", "ppm")

    def __init__(self, offset: int = 0, ppm: int = 0) -> None:
        self._from = 0  # virtual time of the last change
        self._shown = offset  # what it showed then
        self.ppm = ppm

    def read(self, now: int) -> int:
        """What it shows at virtual time `now`."""
        return self._shown + (now - self._from) * (_PER_MILLION + self.ppm) // _PER_MILLION

    def when(self, shown: int) -> int:
        """The first virtual time at which it shows `shown` or more."""
        return self._from - (self._shown - shown) * _PER_MILLION // (_PER_MILLION + self.ppm)

    def set_speed(self, now: int, ppm: int) -> None:
        """Run at another speed from `now` on."""
        self._from, self._shown, self.ppm = now, self.read(now), ppm

    def jump(self, now: int, ahead: int) -> None:
        """Show `ahead` nanoseconds more from `now` on."""
        self._from, self._shown = now, self.read(now) + ahead
