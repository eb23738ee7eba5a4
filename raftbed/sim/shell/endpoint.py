"""One end of a connection in virtual time: a stream of bytes, as TCP carries it over a link that may be bad.

What a link does to messages, TCP hides or turns into something else: a lost piece comes later, and all behind it wait;
a cut holds everything back until it is over, or until an end gives up; nothing is reordered within a connection, or
comes twice. What TCP does not keep are the bounds of what was written: a reader gets pieces of any size.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol, TypeVar

from raftbed.sim.network import Link
from raftbed.sim.shell.loop import VirtualLoop
from raftbed.sim.shell.wiretap import Tap
from raftbed.sim.timeline import Timeline

_TRIES = 12
_PATCHY = ((0.6, 0.01), (0.3, 0.2), (0.1, 0.8))  # share of connections, and of their reads that get a part only
_WINDOWS = ((0.8, 256 << 10), (0.15, 4 << 10), (0.05, 1000))  # share, and bytes on their way that the kernels take
_HIGH_WATERS = (
    (0.85, 64 << 10),
    (0.15, 0),
)  # share, and bytes that the kernel does not take, beyond which a writer is to wait
_Number = TypeVar("_Number", int, float)
_SMALL = 24  # bytes: such a part is mostly smaller than this


class Carrier(Protocol):
    """The network, as an end needs it."""

    timeline: Timeline

    def forget(self, endpoint: Endpoint) -> None:
        """This end is over."""
        ...

    def is_dark(self, place: str) -> bool:
        """Nobody answers there."""
        ...

    def is_blocked(self, link: Link) -> bool:
        """Nothing gets through at present; TCP will try again."""
        ...

    def again(self, link: Link, tries: int) -> int:
        """Nanoseconds until TCP tries again."""
        ...

    def time(self, link: Link) -> int:
        """Nanoseconds that a piece takes."""
        ...


class Endpoint(asyncio.Transport):
    """One end of a connection: the process's transport, and the part of the machine's kernel behind it.

    Parameters:
        network: that it belongs to.
        loop: of the process.
        place: the machine.
        link: towards the other end.
        random: of this connection.

    Attributes:
        peer: the other end.
        tap: is told what is written here, and when the other end has read it; or None.
    """

    peer: Endpoint
    tap: Tap | None = None

    def __init__(self, network: Carrier, loop: VirtualLoop, place: str, link: Link, random: Random) -> None:
        super().__init__()
        self.place = place
        self._network = network
        self._timeline = network.timeline
        self._loop = loop
        self._link = link
        self._draw = random.random
        self._partial = _pick(self._draw, _PATCHY)
        self._window = _pick(self._draw, _WINDOWS)
        self._high_water = _pick(self._draw, _HIGH_WATERS)
        self._protocol: Any = None
        self._buffer = bytearray()  # that the kernel does not take yet
        self._on_the_way = 0  # bytes that it took, and that the other process has not read
        self._stalled: list[bytes] = []
        self._last_arrival = 0
        self._received = bytearray()
        self._end_received = False
        self._read_is_due = self._reading_paused = self._writing_paused = False
        self._closing = False  # by this process
        self._over = False  # for the kernel, too: it refuses what comes
        self._vanished = False  # with the machine's power
        self._is_made = self._told = False  # connection_made, connection_lost
        self._error: Exception | None = None

    def begin(self, protocol: asyncio.BaseProtocol, then: Callable[[], None] | None = None) -> None:
        """Give the protocol its connection; in the process's loop."""
        self._protocol = protocol
        self._loop.call_soon(self._made, protocol, then)

    def _made(self, protocol: asyncio.BaseProtocol, then: Callable[[], None] | None) -> None:
        self._is_made = True
        protocol.connection_made(self)
        if then is not None:
            then()
        if self._told:  # it was over before the process heard of it
            self._loop.call_soon(self._lose)
        self._see_to_reading()

    # -- asyncio.Transport --------------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio`."""
        return {"peername": (self.peer.place, 0), "sockname": (self.place, 0)}.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See `asyncio`."""
        self._protocol = protocol

    def get_protocol(self) -> Any:
        """See `asyncio`."""
        return self._protocol

    def is_closing(self) -> bool:
        """See `asyncio`."""
        return self._closing

    def is_reading(self) -> bool:
        """See `asyncio`."""
        return not (self._reading_paused or self._closing)

    def pause_reading(self) -> None:
        """See `asyncio`."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """See `asyncio`."""
        self._reading_paused = False
        self._see_to_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The usual ones are kept."""

    def get_write_buffer_size(self) -> int:
        """See `asyncio`."""
        return len(self._buffer)

    def can_write_eof(self) -> bool:
        """Half-closed connections there are none."""
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See `asyncio`."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data argument must be a bytes-like object, not {type(data).__name__!r}")
        if self._closing or not data:
            return
        if self.tap is not None:
            self.tap.written(bytes(data))
        self._buffer += data
        self._flush()
        if len(self._buffer) > self._high_water and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        """See `asyncio`."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """See `asyncio`: what was written is still sent."""
        if not self._closing:
            self._closing = True
            if not self._buffer:
                self._end(None)

    def abort(self) -> None:
        """See `asyncio`: what the kernel has is still sent."""
        if not self._closing or self._buffer:
            self._closing = True
            self._buffer.clear()
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        self.leave()
        self._tell(error)

    def _tell(self, error: Exception | None) -> None:
        if not self._told:
            self._told = self._closing = True
            self._error = error
            if self._is_made:
                self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        self._protocol.connection_lost(self._error)

    # -- out ----------------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Hand to the kernel what it takes; in the process's loop."""
        room = self._window - self._on_the_way
        if self._buffer and room > 0 and not self._over:
            data = bytes(self._buffer[:room])
            del self._buffer[:room]
            self._on_the_way += len(data)
            self._send(data)
        if self._closing and not self._told and not self._buffer:
            self._end(None)
        elif self._writing_paused and len(self._buffer) <= self._high_water // 4 and not self._closing:
            self._writing_paused = False
            self._protocol.resume_writing()

    def _taken(self, count: int) -> None:
        """The other process has read so much."""
        self._on_the_way -= count
        if self._buffer and not self._over:
            self._loop.call_soon(self._flush)

    def leave(self) -> None:
        """The process lets go of the connection, or is gone: the kernel ends it."""
        if self._over:
            return
        self._over = True
        self._network.forget(self)
        if self._received:  # that nobody will read
            self._refuse()
        else:
            self._send(b"")

    def vanish(self) -> None:
        """The machine is gone, and nobody is told."""
        self._over = self._vanished = True
        self._stalled.clear()

    def _send(self, data: bytes) -> None:
        """Let data go its way; none: the end of the stream."""
        if self._stalled:
            self._stalled.append(data)
        elif self._network.is_blocked(self._link):
            self._stalled.append(data)
            self._timeline.after(self._network.again(self._link, 0), self._send_again, 1)
        else:
            self._go(data)

    def _send_again(self, tries: int) -> None:
        if not self._stalled:
            return
        if self._network.is_blocked(self._link):
            self._timeline.after(self._network.again(self._link, tries), self._send_again, tries + 1)
            return
        stalled, self._stalled = self._stalled, []
        for data in stalled:
            self._go(data)

    def _go(self, data: bytes) -> None:
        arrival = max(self._timeline.now + self._network.time(self._link), self._last_arrival)
        self._last_arrival = arrival
        self._timeline.at(arrival, self.peer._arrived, data, 0)

    # -- in -----------------------------------------------------------------------------------------------------------

    def _arrived(self, data: bytes, tries: int) -> None:
        if self._vanished and self._network.is_dark(self.place):
            if tries < _TRIES:
                self._timeline.after(self._network.again(self._link, tries), self._arrived, data, tries + 1)
        elif self._over:
            if data:
                self._refuse()
        elif not data:
            self._end_received = True
            self._see_to_reading()
        else:
            self._received += data
            self._see_to_reading()

    def _refuse(self, tries: int = 0) -> None:
        """Reset the other end, as soon as it can be reached."""
        if not self._network.is_blocked(self._link):
            self._timeline.after(self._network.time(self._link), self.peer.reset)
        elif tries < _TRIES:
            self._timeline.after(self._network.again(self._link, tries), self._refuse, tries + 1)

    def reset(self) -> None:
        """A reset came in: the connection is over, and what was not read is lost."""
        if self._over:
            return
        self._over = True
        self._network.forget(self)
        self._received.clear()
        self._buffer.clear()
        self._stalled.clear()
        self._tell(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _see_to_reading(self) -> None:
        if self._read_is_due or self._reading_paused or self._closing or self._protocol is None:
            return
        if self._received or self._end_received:
            self._read_is_due = True
            self._loop.call_soon(self._read)

    def _read(self) -> None:
        self._read_is_due = False
        if self._reading_paused or self._closing:
            return
        try:
            if self._received:
                count = self._part(len(self._received))
                data = bytes(self._received[:count])
                del self._received[:count]
                self.peer._taken(count)
                if self.peer.tap is not None:
                    self.peer.tap.read(count)
                self._protocol.data_received(data)
            elif self._end_received:
                self._end_received = False
                if not self._protocol.eof_received():
                    self.close()
        except Exception as error:  # as asyncio's own transports do
            self._loop.call_exception_handler(
                {"message": "Fatal error: a protocol broke on what it received.", "exception": error}
            )
            self.abort()
        self._see_to_reading()

    def _part(self, size: int) -> int:
        """How much of what there is a read gets."""
        if size == 1 or self._draw() >= self._partial:
            return size
        most = min(size, _SMALL) if self._draw() < 0.7 else size
        return 1 + int(self._draw() * (most - 1))


def _pick(draw: Callable[[], float], shares: Sequence[tuple[float, _Number]]) -> _Number:
    """One of the values, each in its share of cases."""
    drawn = draw()
    for share, value in shares:
        if (drawn := drawn - share) < 0:
            return value
    return shares[-1][1]
