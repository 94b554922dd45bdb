"""The TLS context of a worker: Gunicorn's, made fit for HTTP/2."""

import socket
import ssl
import stat
import threading

import pytest
from gunicorn.config import Config

from gunicorn_h2.workers.tls import Keylog, make_context, make_wrapper
from tests.drivers.rig import Log

pytestmark = pytest.mark.compat


@pytest.fixture
def context(certs):
    """A function that makes a context, with an `ssl_context` hook."""
    def context(hook=None):
        cfg = Config()
        cfg.set("certfile", str(certs.server_cert))
        cfg.set("keyfile", str(certs.server_key))
        if hook is not None:
            cfg.set("ssl_context", hook)
        return make_context(cfg, ("h2", "http/1.1"))
    return context


def test_what_http2_wants(context):
    made = context()
    assert made.minimum_version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    for option in (ssl.OP_NO_COMPRESSION, ssl.OP_NO_RENEGOTIATION):
        assert option in made.options


def test_one_session_ticket(context):
    assert context().num_tickets == 1


@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_hook_may_want_another_number_of_tickets(context, number):
    def hook(_, make):
        made = make()
        made.num_tickets = number
        return made

    assert context(hook).num_tickets == number


def test_the_secrets_go_to_a_file_of_its_owner_alone(certs, tmp_path):
    keylog = tmp_path / "keys.log"
    cfg = Config()
    cfg.set("certfile", str(certs.server_cert))
    cfg.set("keyfile", str(certs.server_key))
    wrap = make_wrapper(make_context(cfg, ("h2",), keylog=Keylog(str(keylog), Log())), cfg)
    near, far = socket.socketpair()
    with near, far:
        server = wrap(near)
        client = threading.Thread(target=lambda: certs.client_context().wrap_socket(far, server_hostname="localhost"))
        client.start()
        server.do_handshake()
        client.join()
    assert "SERVER_TRAFFIC_SECRET_0 " in keylog.read_text()
    assert stat.S_IMODE(keylog.stat().st_mode) == 0o600


def test_a_context_is_made_without_a_keylog_that_is_lost(certs, tmp_path):
    """One warning, however many contexts; if the file can be opened again, it is used again."""
    path, log = tmp_path / "keys.log", Log()
    cfg = Config()
    cfg.set("certfile", str(certs.server_cert))
    cfg.set("keyfile", str(certs.server_key))
    keylog = Keylog(str(path), log)
    path.unlink()
    path.mkdir()
    for _ in range(2):
        assert make_context(cfg, ("h2",), keylog=keylog).keylog_filename is None
    (warning,) = log.warnings
    assert warning.startswith("Secrets of new connections are not written any more: ")
    assert warning.endswith(f"http2_keylog: Is a directory: '{path}'")
    path.rmdir()
    assert make_context(cfg, ("h2",), keylog=keylog).keylog_filename == str(path)


def test_a_keylog_that_cannot_be_made(tmp_path):
    with pytest.raises(IsADirectoryError, match="http2_keylog: "):
        Keylog(str(tmp_path), Log())


def test_no_secrets_are_written_otherwise(context):
    assert context().keylog_filename is None
