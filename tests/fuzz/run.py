"""One target under atheris, with libFuzzer's arguments: `python -m tests.fuzz.run TARGET [OPTION ...] [CORPUS ...]`."""

import sys

import atheris

with atheris.instrument_imports(include=["gunicorn_h2"]):
    from .targets import TARGETS

name, *options = sys.argv[1:]
atheris.Setup([sys.argv[0], *options], TARGETS[name])
atheris.Fuzz()
