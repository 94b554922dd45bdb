"""Coverage-guided fuzzing of what reads octets from a peer.

    python -m tests.fuzz [--seconds 600] [--jobs 1] [TARGET ...]

A target (`targets.py`) is a function of some octets that fails, by any exception, if it finds a mistake. atheris, which
only this needs, changes the octets and keeps those that reach lines that no others reached. It begins with the inputs
in `corpus/`: what `python -m tests.fuzz.record` has made of the sessions of real clients, and what once failed.
`test_corpus.py` plays all of them without atheris.

What fails is written to `crashes/`. It is a test from then on: it goes to `corpus/` under a name that says what it is
(`found-...`), and what it has shown of the core gets a test of its own in `tests/protocol`.
"""
