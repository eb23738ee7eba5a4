"""Systems under test: how each is installed, started, stopped and talked to."""
