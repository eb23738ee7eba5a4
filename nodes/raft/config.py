"""Configuration of a Raft node, validated when it is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from raftbed.nodes.raft.errors import ConfigError

MOST_BYTES = 32 << 20
"""Of what goes in one message at most: half of what nodes take in one (64 MiB), so that there is room for the rest."""
MILLISECOND = 1_000_000
"""Nanoseconds in a millisecond; the core counts time in nanoseconds, configurations in milliseconds."""


@dataclass(frozen=True, slots=True)
class LogsSinceLast:
    """Snapshot policy: take one when so many entries were applied since the last.

    Raises:
        ConfigError: the number is less than 1.
    """

    entries: int

    def __post_init__(self) -> None:
        entries: object = self.entries  # from a file, perhaps
        if not isinstance(entries, int) or isinstance(entries, bool) or entries < 1:
            raise ConfigError(f"snapshot_policy: must be a whole number of at least 1, not {self.entries!r}.")

    def __str__(self) -> str:
        return str(self.entries)


@dataclass(frozen=True, slots=True)
class Config:
    """How a Raft node behaves. Times are milliseconds. Names and defaults follow async-raft 0.6.1.

    Attributes:
        cluster_name: which cluster the node belongs to. The library does not send it: it is for the network to see that
            no node of another cluster is let in (docs/embedding.md).
        election_timeout_min: a follower that has not heard from a leader for a time drawn uniformly from
            [election_timeout_min, election_timeout_max) stands for election.
        election_timeout_max: see there.
        heartbeat_interval: a leader lets each peer hear from it at least this often.
        max_payload_entries: entries in one AppendEntries at most.
        max_payload_bytes: bytes of entries in one AppendEntries at most; an entry larger than that goes alone.
        max_inflight_messages: AppendEntries on their way to one peer at most.
        max_inflight_bytes: beyond so many bytes of entries on their way to one peer, no more are sent to it.
        max_uncommitted_entries: beyond so many entries that are not committed, writes are refused as overloaded; and
            beyond so many writes that wait for the disk.
        max_uncommitted_bytes: likewise, beyond so many bytes of them.
        max_waiting_reads: beyond so many reads that wait for a confirmation, or for the disk, reads are refused as
            overloaded.
        replication_lag_threshold: a peer that lacks more entries than that of what the snapshot includes is sent the
            snapshot, though the log may still have the entries.
        snapshot_policy: when to take snapshots: `LogsSinceLast(5000)`, say. None: never, but when they are asked for.
        snapshot_max_chunk_size: bytes of a snapshot in one InstallSnapshot at most.
        install_snapshot_timeout: how long one such message may take.
        trailing_logs: entries kept in the log though the snapshot includes them, for peers that are a little behind.
        pre_vote: ask for promises before standing for election (Raft thesis 9.6).
        check_quorum: a leader that has not heard from a quorum for election_timeout_max steps down.
        disk_stall_timeouts: for how many election timeouts (election_timeout_max) a leader still leads while its disk
            works on one write; after that it falls silent, and is replaced. 0: everything waits for the disk.
        read_mode: "read-index": each round of reads is confirmed by a quorum (Raft thesis 6.4). "lease": a leader that
            heard from a quorum a moment ago serves reads at once, which is only as right as the clocks are (6.4.1).
        lease_drift_percent: by how much clocks may differ in speed; the lease is shorter by that.

    Raises:
        ConfigError: naming the field.
    """

    cluster_name: str
    election_timeout_min: int = 150
    election_timeout_max: int = 300
    heartbeat_interval: int = 50
    max_payload_entries: int = 300
    max_payload_bytes: int = 1 << 20
    max_inflight_messages: int = 4
    max_uncommitted_entries: int = 20_000
    max_uncommitted_bytes: int = 64 << 20
    pre_vote: bool = True
    check_quorum: bool = True
    read_mode: Literal["read-index", "lease"] = "read-index"
    max_inflight_bytes: int = 8 << 20
    max_waiting_reads: int = 50_000
    replication_lag_threshold: int = 1000
    snapshot_policy: LogsSinceLast | None = LogsSinceLast(5000)
    snapshot_max_chunk_size: int = 3 << 20
    install_snapshot_timeout: int = 5000
    trailing_logs: int = 1000
    lease_drift_percent: int = 10
    disk_stall_timeouts: int = 4

    def __post_init__(self) -> None:
        cluster: object = self.cluster_name
        if not isinstance(cluster, str) or not cluster:
            raise ConfigError("cluster_name: must be a name that is not empty.")
        for name in ("pre_vote", "check_quorum"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}: must be true or false, not {getattr(self, name)!r}.")
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in ("trailing_logs", "lease_drift_percent", "disk_stall_timeouts") else 1
            if field.type == "int" and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise ConfigError(f"{field.name}: must be a whole number of at least {least}, not {value!r}.")
        for name in ("max_payload_bytes", "snapshot_max_chunk_size"):
            if getattr(self, name) > MOST_BYTES:
                raise ConfigError(f"{name}: must be at most {MOST_BYTES}, not {getattr(self, name)}.")
        if self.election_timeout_min >= self.election_timeout_max:
            raise ConfigError(
                f"election_timeout_min: {self.election_timeout_min} must be less than election_timeout_max, which is "
                f"{self.election_timeout_max}."
            )
        if self.election_timeout_min <= self.heartbeat_interval:
            raise ConfigError(
                f"election_timeout_min: {self.election_timeout_min} must be more than heartbeat_interval, which is "
                f"{self.heartbeat_interval}."
            )
        if self.read_mode not in ("read-index", "lease"):
            raise ConfigError(f'read_mode: must be "read-index" or "lease", not {self.read_mode!r}.')
        policy: object = self.snapshot_policy
        if not isinstance(policy, LogsSinceLast | None):
            meant = f" Write LogsSinceLast({policy})." if isinstance(policy, int) and policy > 0 else ""
            raise ConfigError(f"snapshot_policy: must be LogsSinceLast or None, not {policy!r}.{meant}")
        if self.lease_drift_percent >= 100:
            raise ConfigError(f"lease_drift_percent: must be less than 100, not {self.lease_drift_percent}.")

    @classmethod
    def from_mapping(cls, cluster_name: str, options: dict[str, Any]) -> Config:
        """Make a configuration from names and values, as they stand in a file.

        There, a whole number as `snapshot_policy` stands for `LogsSinceLast`.

        Raises:
            ConfigError: for a name that there is not, too.
        """
        known = [field.name for field in fields(cls) if field.name != "cluster_name"]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(f"{', '.join(unknown)}: no such option; there are: {', '.join(known)}.")
        policy = options.get("snapshot_policy")
        if policy is not None:
            options = {**options, "snapshot_policy": LogsSinceLast(policy)}
        return cls(cluster_name, **options)
