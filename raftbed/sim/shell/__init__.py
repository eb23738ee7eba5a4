"""The whole node in virtual time: its server, its connections, its storage, as they are on a host.

Theory of operation
-------------------
The simulator of :mod:`raftbed.sim` drives the node's core, and leaves out the shell around it. Here nothing of the node
is left out: `raftbed.nodes.__main__.run` runs as it is, aiohttp included, on an event loop whose time is virtual. What
the node takes from its machine comes in through seams that anyone may use: the event loop (`loop.py`: time, timers,
connections, signals) and `raftbed.nodes.surroundings` (clock, randomness, the storage's threads, disk).

Each process has a loop of its own, stepped by the events of the one timeline: a paused process is a loop that is not
stepped, a killed one a loop that is never stepped again. Connections are streams of bytes (`endpoint.py`, `streams.py`)
over the links of the simulated network, with what TCP makes of a bad one: delays, stalls, resets, pieces of any size.
The storage's threads are queues of calls that take virtual time (`worker.py`). Schedule, faults, recording and checks
are the simulator's own; clients and operators speak HTTP, with the client of a live run (`clients.py`).
"""
