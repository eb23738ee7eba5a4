"""Faults: each one injects, proves that it took, and undoes itself."""
