"""Leases: which edges are alive, and where."""

import msgspec


class EdgeLease(msgspec.Struct, frozen=True, tag="ramal.EdgeLease", tag_field="type"):
    """An edge says that it lives; repeated every few seconds, a tombstone when it stops."""

    edge: str
    boot: str
    every: int
    """Seconds between two leases."""
    addresses: dict[str, str]
    """By transport, `host:port`; under `edges`, where other edges connect."""
    since: int = 0
    """Milliseconds in the log's time of this life's first lease, which orders lives; 0: this is the first."""
    hosts: tuple[str, ...] = ()
    """Every `host:port` by which phones reach it, or `host` where the port is not known."""
