"""The Raft library."""
