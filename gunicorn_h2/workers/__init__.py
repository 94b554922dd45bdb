"""The interface to Gunicorn: the worker classes and their settings.

Importing it leaves Gunicorn's folder, and this package's, out of the module search path: see `leave_own_folders`.
"""

from __future__ import annotations

import os
import sys

import gunicorn

__all__ = ["leave_own_folders"]


def leave_own_folders() -> None:
    """Take the folders of the packages `gunicorn` and `gunicorn_h2` out of `sys.path`.

    They are there after SIGUSR2 if Gunicorn was started with `python -m`: the new master is given the name of the file
    that was run, gunicorn/__main__.py, and Python searches the folder of such a file first. There `import http`, which
    gevent needs, finds Gunicorn's own package of that name.
    """
    folders = {os.path.realpath(folder) for folder in (*gunicorn.__path__, os.path.dirname(__path__[0]))}
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) not in folders]


leave_own_folders()
