"""Peers for the doctor: real servers, and listeners that answer as a test says."""

import json
import socket
import ssl
import threading
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import pytest
import trustme

from gunicorn_h2.doctor.command import main
from tests.support.server import WORKERS, Server, WorkerKind, stop_all


@pytest.fixture
def doctor(capsys, certs):
    """A function that diagnoses a URL, trusting the tests' authority; returns what --json prints, and the text."""

    def doctor(url, *arguments, trusting=True):
        trust = ("--cacert", certs.ca) if trusting else ()
        status = main([url, "--json", "--timeout", "5", *trust, *arguments])
        out = capsys.readouterr().out
        found = SimpleNamespace(**json.loads(out))
        assert found.exit_status == status
        found.text = "\n".join(f"{f['level']} {f['topic']}: {f['text']}" for f in found.findings)
        return found

    return doctor


@pytest.fixture(scope="session")
def servers(tmp_path_factory, certs):
    """A function that returns a running server of a worker class, booted when it is first asked for."""
    running = {}

    def get(kind="thread", **options):
        key = (kind, repr(sorted(options.items())))
        if key not in running:
            worker = WORKERS[kind] if kind in WORKERS else WorkerKind(kind)
            running[key] = Server(tmp_path_factory.mktemp("server"), worker, certs, "wsgi", **options).start()
        return running[key]

    yield get
    stop_all(running.values())


@pytest.fixture
def listen():
    """A function that starts a listener; `respond(sock)` is called for each connection, in a thread of its own."""
    with ExitStack() as stack:
        yield lambda respond, context=None: stack.enter_context(_listening(respond, context))


@contextmanager
def _listening(respond, context):
    """Listen on a port for as long as the block lasts; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve(sock):
        with sock:
            sock.settimeout(10)
            try:
                if context is None:
                    respond(sock)
                else:
                    with context.wrap_socket(sock, server_side=True) as secured:
                        respond(secured)
            except OSError:
                # The doctor goes when it has seen enough.
                pass

    def accept():
        while True:
            sock, _ = listener.accept()
            if stop.is_set():
                sock.close()
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    port = listener.getsockname()[1]
    try:
        yield port
    finally:
        stop.set()
        socket.create_connection(("127.0.0.1", port)).close()
        thread.join()
        listener.close()


def server_context(cert, key=None, alpn=("h2", "http/1.1")):
    """A server's TLS context, with a trustme certificate or the names of files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if key is None:
        cert.configure_cert(context)
    else:
        context.load_cert_chain(cert, key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """An authority for certificates that are wrong, and the file to trust it by."""
    ca = trustme.CA(organization_name="The Wrong Authority")
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    ca.cert_pem.write_to_path(path)
    return SimpleNamespace(ca=ca, path=str(path), directory=path.parent)
