"""`make soak`: hours of mixed load in minutes; see `python -m tests.soak --help`."""
