"""The simulator: the plan of a live run, executed in virtual time, where the same seed gives the same run to the byte.

Theory of operation
-------------------
Everything happens on one heap of events in virtual nanoseconds (`timeline.py`). A node is the real Raft core, the real
log store and the real state machine, driven as `raftbed.nodes.raft.api` drives them (`node.py`), over a disk
(`disk.py`), a clock (`clock.py`) and a network (`network.py`) that faults can act on (`faults.py`). Clients are the
ordinary `raftbed.clients.Worker` with the ordinary workloads: coroutines that are resumed by the heap instead of by an
event loop. `simulation.py` goes through the phases of a run, `recording.py` keeps what a live run keeps.

What makes it repeat: one seeded generator for each concern, drawn from by that concern alone; integers for time; events
of the same moment in the order in which they were asked for; no iteration over a set, and no look at the wall clock.
"""
