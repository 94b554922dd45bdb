"""Reading the examples as those do who they are for."""

import json
import os
import sys
from pathlib import Path

from tests.support.deployment import EXAMPLES
from tests.support.tools import missing, run

SCHEMAS = Path(sys.prefix) / "schemas"
"""Packages with types and schemas (see the Makefile), apart from others whose modules have the same names."""


def read(kind, name):
    """Return what an example holds, checked by `schemas.py`."""
    if not SCHEMAS.exists():
        missing("the packages with schemas are not installed; run make thorough")
    script = Path(__file__).with_name("schemas.py")
    env = {**os.environ, "PYTHONPATH": str(SCHEMAS)}
    return json.loads(run(sys.executable, script, kind, EXAMPLES / name, env=env).stdout)


def names_of(name):
    """Return what a conf file sets."""
    names = {}
    exec((EXAMPLES / name).read_text(encoding="utf-8"), names)
    return names
