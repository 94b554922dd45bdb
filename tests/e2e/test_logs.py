"""What operators and developers read of connections, with a whole worker of each kind."""

import re

import pytest

from tests.support.h2client import H2Client
from tests.support.kinds import KINDS, kind_param, make_server

APP = "tests.apps.{}_app:app"


@pytest.fixture(params=map(kind_param, KINDS))
def boot(request, tmp_path, certs):
    """A function that boots a server of each kind of worker."""
    servers = []

    def boot(**settings):
        server = make_server(request.param, tmp_path, certs, APP, **settings)
        servers.append(server)
        server.start()
        return server

    yield boot
    for server in servers:
        server.stop()


def test_a_line_for_each_connection(boot):
    server = boot(loglevel="debug")
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200
        peer, (cipher, version, _) = "{}:{}".format(*client.sock.getsockname()), client.sock.cipher()
    server.wait_log(
        rf"\[DEBUG\] connection closed: peer={peer} protocol=h2 tls={version} cipher={cipher} streams=1 requests=1 "
        r"cut_off=0 received=\d+ sent=\d+ seconds=\d\.\d{3} by=client reason=eof code=- detail=-")


def test_no_line_at_another_level(boot):
    server = boot(loglevel="info")
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200
    server.stop()
    assert not re.search("connection closed: ", server.log)


def test_a_trace(boot, tmp_path):
    path = tmp_path / "trace.log"
    server = boot(http2_trace=str(path))
    with H2Client.connect(server) as client:
        assert client.get("/hello", [("cookie", "session=hunter2")]).status == 200
    server.stop()
    warnings = re.findall(rf"\[WARNING\] http2_trace IS ON: .* written to {re.escape(str(path))}, ", server.log)
    assert len(warnings) == 2
    trace = path.read_text()
    assert re.search(r"^\d+\.1 0\.\d{3} recv HEADERS stream=1 length=\d+ flags=END_STREAM,END_HEADERS$", trace, re.M)
    assert re.search(r"^\d+\.1 0\.\d{3}      cookie: \(15 octets\)$", trace, re.M)
    assert re.search(r"^\d+\.1 0\.\d{3} send DATA stream=1 length=\d+ flags=END_STREAM$", trace, re.M)
    assert "hunter2" not in trace
