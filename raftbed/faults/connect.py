"""Runs on a host: tries TCP connections to several addresses at once and prints what became of each, as JSON.

Usage: ``python -I -S connect.py SECONDS PORT ADDRESS...``. Standard library only; prints a map of address to
"connected", "refused" (somebody is there: the way is open), "timeout", or the error's name.
"""

import errno
import json
import select
import socket
import sys
import time

seconds, port, addresses = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
results = {}
waiting = {}
for address in addresses:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setblocking(False)
    code = sock.connect_ex((address, port))
    if code in (0, errno.EINPROGRESS):
        waiting[sock] = address
    else:
        results[address] = errno.errorcode.get(code, str(code)).lower()
deadline = time.monotonic() + seconds
while waiting and time.monotonic() < deadline:
    _, ready, _ = select.select([], list(waiting), [], max(0.0, deadline - time.monotonic()))
    for sock in ready:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        name = {0: "connected", errno.ECONNREFUSED: "refused"}.get(code, errno.errorcode.get(code, str(code)).lower())
        results[waiting.pop(sock)] = name
for address in waiting.values():
    results[address] = "timeout"
print(json.dumps(results))
