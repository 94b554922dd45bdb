"""What a run ran on: processor, kernel, versions, revision."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PACKAGES = ("gunicorn", "h2", "hpack", "gevent", "uvloop", "granian", "hypercorn", "uvicorn", "zttp", "flask")
ROOT = Path(__file__).resolve().parent.parent


def describe() -> dict[str, Any]:
    """Return the machine, the versions of everything that takes part, and the date."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "openssl": ssl.OPENSSL_VERSION,
        "revision": revision(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "h2load": _first_match(["h2load", "--version"], r"nghttp2/(\S+)"),
        "nginx": _first_match(["/usr/sbin/nginx", "-v"], r"nginx/(\S+)"),
    }


def revision() -> str:
    """Name the commit that is checked out, with a mark where files differ from it."""
    return _output(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=8"]).strip() or "unknown"


def _processor() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _first_match(command: list[str], pattern: str) -> str:
    match = re.search(pattern, _output(command))
    return match[1] if match else ""


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout + done.stderr if done.returncode == 0 else ""
