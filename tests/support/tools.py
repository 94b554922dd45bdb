"""Finding and running the tools that the tests are driven by: command-line clients, and libraries of Python's."""

import importlib
import os
import shutil
import subprocess

import pytest

PACKAGES = {"nghttp": "nghttp2-client", "h2load": "nghttp2-client", "grpc": "grpcio", "node": "nodejs",
            "systemd-analyze": "systemd", "systemd-socket-activate": "systemd"}
# Debian keeps servers where users do not look for commands.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])


def require_tool(name):
    """Return the path of a command; where it is missing skip, but fail in CI, where no tool may be missing."""
    return shutil.which(name, path=SEARCH_PATH) or _missing_package(name)


def require_module(name):
    """Import a module and return it; where it is missing skip, but fail in CI, as for a command."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return _missing_package(name)


def _missing_package(name):
    return missing(f"{name} is not installed; install the package {PACKAGES.get(name, name)}")


def missing(reason):
    """Skip a test that lacks something, but fail in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def run(name, *args, timeout=60, check=True, **kwargs):
    """Run a command-line client and return the finished process, its output as text."""
    command = [require_tool(name), *map(str, args)]
    if kwargs.setdefault("text", True):
        kwargs.setdefault("errors", "backslashreplace")
    done = subprocess.run(command, capture_output=True, timeout=timeout, **kwargs)
    if check:
        assert done.returncode == 0, f"{' '.join(command)}\nexit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def curl(server, path, *args, **kwargs):
    """Run curl against a path of a server, trusting its certificate authority."""
    common = ["--silent", "--show-error", "--max-time", "60", *server.curl_options]
    return run("curl", *common, *args, server.url + path, **kwargs)
