"""Workloads: client, generator, and the names of the checks that judge them."""
