"""Durable and in-memory stores behind the RaftStorage protocol."""
