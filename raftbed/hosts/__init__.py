"""Hosts: where the system under test runs; every kind speaks SSH."""
