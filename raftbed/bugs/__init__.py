"""Planted bugs: historical mistakes of Raft implementations, one small module each."""
