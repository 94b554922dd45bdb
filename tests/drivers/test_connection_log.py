"""The line of a connection that ends, on each driver: who ended it, why, and what it had done."""

import json
import re
import socket
import ssl
from itertools import product

import pytest
from hyperframe.frame import GoAwayFrame

from gunicorn_h2.drivers import base
from gunicorn_h2.drivers.admission import HANDSHAKE_COST
from gunicorn_h2.drivers.connection_log import log_failed
from gunicorn_h2.drivers.log import logs_debug
from gunicorn_h2.drivers.negotiation import Negotiation, Terms
from gunicorn_h2.protocol.opening import Cleartext
from tests.support.h2client import PREFACE, H2Client

from .asyncio_wire import reset, tcp_pair
from .every_driver import DRIVERS, AnyDriver
from .rig import TIMEOUT, Log, wait_until

KEYS = ["peer", "protocol", "tls", "cipher", "streams", "requests", "cut_off", "received", "sent", "seconds", "by",
        "reason", "code", "detail"]
IDLE = 0.2
SAID = ["nothing", "half", "all"]


@pytest.fixture(params=DRIVERS)
def serve(request, certs):
    """A function that runs each driver."""
    drivers = []

    def serve(**config):
        drivers.append(AnyDriver(request.param, certs, **config))
        return drivers[-1]

    yield serve
    for driver in drivers:
        driver.close()


def lines(log):
    """The lines of connections so far, each as a dictionary."""
    found = []
    for line in log.debugs:
        head, _, pairs = line.partition("connection closed: ")
        if pairs:
            assert not head
            values = re.findall(r'(?:^| )([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)', pairs)
            assert " ".join(f"{key}={value}" for key, value in values) == pairs
            found.append({key: json.loads(value) if value[0] == '"' else value for key, value in values})
    return found


def line_of(driver):
    """The line of the only connection, once it is there."""
    wait_until(lambda: lines(driver.log))
    (line,) = lines(driver.log)
    assert list(line) == KEYS
    assert 0 <= float(line["seconds"]) < TIMEOUT
    assert driver.driver.closings.counts == counted(line)
    return line


def counted(line):
    """What is counted where a connection has ended so; of those that clients just close, nothing."""
    if line["reason"] == "error":
        return {line["code"].lower(): 1}
    return {line["reason"]: 1} if line["by"] == "server" or line["reason"] == "goaway" else {}


def why(line):
    """Who ended the connection, and why."""
    return line["by"], line["reason"], line["code"]


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
def test_a_client_that_closes(serve, tls):
    driver = serve()
    client = driver.client(tls)
    for _ in range(3):
        assert client.get("/hello").status == 200
    client.close()
    line = line_of(driver)
    assert why(line) == ("client", "eof", "-")
    assert (line["streams"], line["requests"], line["cut_off"], line["detail"]) == ("3", "3", "0", "-")
    assert 3 * 9 < int(line["received"]) < 1_000
    assert 3 * 18 < int(line["sent"]) < 1_000
    assert (line["protocol"], line["tls"]) == (("h2", "TLSv1.3") if tls else ("h2c", "-"))
    assert line["cipher"].startswith("TLS_") if tls else line["cipher"] == "-"


def test_octets_are_counted_without_tls_records(serve):
    driver = serve()
    client = driver.client(tls=True)
    for _ in range(50):
        client.ping()
    client.close()
    line = line_of(driver)
    # A record would add 22 octets to each PING and to each answer.
    assert 51 * 17 < int(line["received"]) < 51 * 17 + 400
    assert 51 * 17 < int(line["sent"]) < 51 * 17 + 400


def test_a_client_that_leaves_its_streams(serve):
    driver = serve()
    client = driver.client()
    client.request("GET", "/work")
    client.request("GET", "/work")
    assert driver.routes.begun.get(timeout=TIMEOUT) == b"/work"
    client.close()
    line = line_of(driver)
    assert why(line) == ("client", "eof", "-")
    assert (line["streams"], line["cut_off"]) == ("2", "2")


def test_a_client_that_resets_its_connection(serve):
    driver = serve()
    ours, theirs = tcp_pair()
    driver.rig.serve(ours)
    theirs.settimeout(TIMEOUT)
    client = H2Client(theirs)
    client.send_preface()
    client.wait_settings()
    reset(theirs)
    line = line_of(driver)
    assert why(line) == ("client", "reset", "-")
    assert "reset" in line["detail"]


def test_a_client_that_says_goodbye(serve):
    driver = serve()
    client = driver.client()
    client.get("/hello")
    client.send_frame(GoAwayFrame(0, last_stream_id=0, error_code=0x0b))
    client.wait_closed()
    client.close()
    assert why(line_of(driver)) == ("client", "goaway", "ENHANCE_YOUR_CALM")


def test_a_client_that_breaks_the_protocol(serve):
    driver = serve()
    client = driver.client()
    client.send_raw(b"\0\0\0\1\4\0\0\0\2")
    client.wait_closed()
    client.close()
    line = line_of(driver)
    assert why(line) == ("server", "error", "PROTOCOL_ERROR")
    assert line["detail"] == "HEADERS on stream 2"


def test_an_idle_connection(serve):
    driver = serve(idle_timeout=IDLE)
    client = driver.client()
    client.get("/hello")
    client.wait_closed()
    client.close()
    assert why(line_of(driver)) == ("server", "idle", "-")


def test_a_connection_at_its_limit_of_requests(serve):
    driver = serve(max_requests_per_connection=2)
    client = driver.client()
    for _ in range(2):
        assert client.get("/hello").status == 200
    client.wait_goaway(2)
    client.close()
    assert why(line_of(driver)) == ("server", "max_requests", "-")


def test_a_connection_at_its_age(serve):
    driver = serve(max_connection_age=IDLE)
    client = driver.client()
    client.wait_goaway(2)
    client.close()
    assert why(line_of(driver)) == ("server", "max_age", "-")


def test_a_worker_that_ends(serve):
    driver = serve()
    client = driver.client()
    client.get("/hello")
    driver.shutdown()
    client.wait_goaway(2)
    client.close()
    assert why(line_of(driver)) == ("server", "shutdown", "-")


def test_a_connection_that_makes_room(serve, monkeypatch):
    monkeypatch.setattr(base, "_LEAST_IDLE", 0.0)
    driver = serve()
    client = driver.client()
    client.get("/hello")
    driver.call(driver.driver.make_room, 1)
    client.wait_closed()
    client.close()
    assert why(line_of(driver)) == ("server", "made_room", "-")


def test_a_handshake_that_makes_room(serve, monkeypatch):
    monkeypatch.setattr(base, "_LEAST_IDLE", 0.0)
    driver = serve()
    sock = driver.open(tls=True)
    wait_until(lambda: driver.call(driver.driver.make_room, 1))
    assert sock.recv(1) == b""
    assert why(line_of(driver)) == ("server", "handshake_displaced", "-")


def test_a_client_that_does_not_answer(serve):
    driver = serve(keepalive_interval=IDLE, keepalive_timeout=IDLE)
    client = driver.client(auto_ping=False)
    client.wait_closed()
    client.close()
    line = line_of(driver)
    assert why(line) == ("server", "keepalive_timeout", "-")


def test_a_defect(serve):
    driver = serve()
    client = driver.client()
    # Not callable, as no connection should be.
    client.holder.connection.receive = None
    client.send_raw(b"\0\0\0")
    assert why(line_of(driver)) == ("server", "internal_error", "-")
    ((error, _),) = driver.log.take_errors()
    assert error.endswith(" ended by an internal error")


def test_a_defect_before_the_protocol_is_known(serve, monkeypatch):
    driver = serve()
    monkeypatch.setattr(Negotiation, "_is_finished", None)
    driver.open().sendall(b"P")
    assert why(line_of(driver)) == ("server", "internal_error", "-")
    ((error, _),) = driver.log.take_errors()
    assert error.endswith(" ended by an internal error")


def client_hello(certs):
    """What a client says first under TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certs.client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(("tls", "leave", "said"), [
    (False, "eof", "half"), *product([False], ["reset"], SAID), *product([True], ["eof", "reset"], SAID)])
def test_a_client_that_leaves_before_its_protocol_is_known(serve, certs, tls, leave, said):
    """As TCP health checks and port scans do: the server has ended nothing, and nobody needs to know."""
    driver, charges = serve(), []
    driver.driver.admission.charge = lambda peer, cost: charges.append(cost)
    ours, theirs = tcp_pair()
    opening = client_hello(certs) if tls else PREFACE[:-1]
    if said != "all":
        driver.rig.serve(ours, tls)
    theirs.sendall({"nothing": b"", "half": opening[: len(opening) // 2], "all": opening}[said])
    reset(theirs) if leave == "reset" else theirs.close()
    if said == "all":
        # Gone before the server has looked at it.
        driver.rig.serve(ours, tls)
    line = line_of(driver)
    assert why(line) == ("client", leave, "-")
    # It pays for what it has cost: the beginning of a handshake, if it has said anything.
    assert charges == [HANDSHAKE_COST] * (tls and said != "nothing")
    assert driver.log.infos == driver.log.warnings == []


def test_a_handshake_that_fails(serve):
    driver = serve()
    sock = driver.open(tls=True)
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    line = line_of(driver)
    assert why(line) == ("server", "handshake_failed", "-")
    assert line["detail"] == "the client sent plain HTTP to a TLS port; it must use https"
    assert (line["protocol"], line["streams"], line["received"]) == ("-", "0", "-")


class QuietLog(Log):
    """A logger like Gunicorn's, at another level than debug."""

    class error_log:
        """Gunicorn's attribute."""

        @staticmethod
        def isEnabledFor(level):
            """See `logging.Logger.isEnabledFor`."""
            return level > 10


def test_gunicorns_level_decides():
    assert not logs_debug(QuietLog())
    assert logs_debug(Log())


def test_values_cannot_forge_a_line():
    ours, theirs = socket.socketpair()
    with theirs:
        log, terms = Log(), Terms(None, Cleartext(prior_knowledge=True), 1)
        negotiation = Negotiation(ours, ("2001:db8::1", 50_000, 0, 0), terms)
        log_failed(log, negotiation, ConnectionResetError('gone" reason=idle\nconnection closed: ' + "x" * 1_000))
        (line,) = lines(log)
        assert (line["peer"], line["reason"]) == ("[2001:db8::1]:50000", "reset")
        assert line["detail"].startswith('gone" reason=idle\nconnection closed: xxx')
        assert len(line["detail"]) == 256
        assert "\n" not in log.debugs[0]
        negotiation.transport.close()
