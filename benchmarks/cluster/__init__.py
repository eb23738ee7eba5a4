"""What benchmarks/raft_cluster.py is made of: a load generator, and the clusters that it loads."""
