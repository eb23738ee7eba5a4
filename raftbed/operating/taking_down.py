"""The end of a cluster."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator

from raftbed.hosts import labs
from raftbed.operating import clusters
from raftbed.operating.clusters import Cluster

_END_TIMEOUT = 5.0


def take_away(cluster: Cluster) -> None:
    """Remove local hosts with everything on them, and the forward that leads to them.

    Raises:
        HostError: they do not go away.
    """
    with _forward_ends(cluster):
        if cluster.lab is not None:
            labs.remove_lab(cluster.lab)
    clusters.tidy_up()


def forget(cluster: Cluster) -> None:
    """Remove what this machine remembers of a cluster on other hosts."""
    with _forward_ends(cluster):
        labs.remove_files(cluster.directory)
    clusters.tidy_up()


@contextlib.contextmanager
def _forward_ends(cluster: Cluster) -> Iterator[None]:
    """After what is done meanwhile, no process forwards to the cluster any more."""
    forward = cluster.forward()
    process = -1
    if forward is not None:
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(forward.pid)
    try:
        yield
        # It ends with the lab, but not with a cluster on other hosts.
        if process >= 0 and (cluster.lab is None or not _ended(process, _END_TIMEOUT)):
            signal.pidfd_send_signal(process, signal.SIGTERM)
            _ended(process, _END_TIMEOUT)
    finally:
        if process >= 0:
            os.close(process)


def _ended(process: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
