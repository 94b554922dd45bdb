"""The file of `http2_trace`: who may read it, what its lines begin with, and what happens when it is full."""

import os
import re
import resource
import stat

import pytest

from gunicorn_h2.drivers.trace_file import TraceFile

from .every_driver import DRIVERS, AnyDriver
from .rig import Log

LINE = re.compile(r"(\d+\.\d+) (\d+\.\d{3}) (.*)")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trace.log"


@pytest.fixture(params=DRIVERS)
def driver(request, certs, path):
    """Each driver, with a trace."""
    driver = AnyDriver(request.param, certs)
    driver.driver.trace = TraceFile(str(path), driver.log)
    yield driver
    driver.close()


def read(path):
    """The lines: the name of the connection, and what is said of it."""
    return [LINE.fullmatch(line).group(1, 3) for line in path.read_text().splitlines()]


def test_each_connection_has_its_name(driver, path):
    first, second = driver.client(tls=True), driver.client()
    assert first.get("/one").status == second.get("/two").status == 200
    lines = read(path)
    names = dict.fromkeys(name for name, _ in lines)
    assert list(names) == [f"{os.getpid()}.1", f"{os.getpid()}.2"]
    for name, route in zip(names, ("/one", "/two"), strict=True):
        of_one = [line for other, line in lines if other == name]
        assert re.fullmatch(r"connection from .+ at \d{4}-\d\d-\d\dT[\d:.]+[+-]\d\d:\d\d", of_one[0])
        assert f"     :path: {route}" in of_one
        assert "     :status: 200" in of_one
        assert any(line.startswith("send DATA stream=1 ") for line in of_one)


def test_it_is_its_owners_alone(path):
    TraceFile(str(path), Log())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_refused(path, tmp_path):
    path.symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match=r"http2_trace: is a symbolic link: .*trace\.log"):
        TraceFile(str(path), Log())
    assert not (tmp_path / "target").exists()


@pytest.fixture
def full(path):
    """A file that cannot grow: it has holes up to the largest size that this process may write."""
    path.touch(0o600)
    os.truncate(path, 1 << 30)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, limits[1]))
    yield path
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_file_that_is_full_ends_the_trace_and_nothing_else(certs, full):
    log = Log()
    driver = AnyDriver("threads", certs)
    driver.driver.trace = TraceFile(str(full), log)
    for _ in range(2):
        assert driver.client().get("/hello").status == 200
    driver.close()
    assert log.warnings == [f"http2_trace: {full} cannot be written any more: [Errno 27] File too large"]
