"""The file of `http2_trace`: who may read it, what its lines begin with, and what happens when it is full."""

import os
import re
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


def test_a_full_disk_ends_the_trace_and_nothing_else(certs):
    log = Log()
    driver = AnyDriver("threads", certs)
    driver.driver.trace = TraceFile("/dev/full", log)
    for _ in range(2):
        assert driver.client().get("/hello").status == 200
    driver.close()
    assert log.warnings == ["http2_trace: /dev/full cannot be written any more: [Errno 28] No space left on device"]
