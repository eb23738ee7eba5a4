"""Runs on a host: tries TCP connections to several addresses at once and prints what became of each, one on a line.

Usage: ``python -I -S connect.py SECONDS PORT ADDRESS...``. Prints an address, a space and "connected", "refused"
(somebody is there: the way is open), "timeout", or the error's name. Standard library only, and little of it: on an
emulated machine an import takes longer than a probe.
"""

import errno
import select
import socket
import struct
import sys
import time


def name(code: int) -> str:
    """What an error number of a connection means here."""
    return {0: "connected", errno.ECONNREFUSED: "refused"}.get(code, errno.errorcode.get(code, str(code)).lower())


def main(argv: list[str]) -> int:
    """Try, and print."""
    seconds, port, addresses = float(argv[0]), int(argv[1]), argv[2:]
    results: dict[str, str] = {}
    waiting: dict[socket.socket, str] = {}
    for address in addresses:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.setblocking(False)
        # Close with a reset: nobody is to wait for a probe.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        code = sock.connect_ex((address, port))
        if code in (0, errno.EINPROGRESS):
            waiting[sock] = address
        else:
            results[address] = name(code)
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        _, ready, _ = select.select([], list(waiting), [], max(0.0, deadline - time.monotonic()))
        for sock in ready:
            results[waiting.pop(sock)] = name(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    for address in waiting.values():
        results[address] = "timeout"
    for address, result in results.items():
        print(address, result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
