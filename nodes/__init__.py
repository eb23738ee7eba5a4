"""What runs on a host: the Raft library and the node built on it. Must not import the controller."""
