"""Checks that several test modules make."""

import itertools
import json

from tests.support.h2client import H2Client, open_tcp

_numbers = itertools.count()


def prove_all_free(server, threads):
    """Show that every pool thread is free: that many requests are answered only if all are inside at once."""
    with H2Client.connect(server) as client:
        path = f"/barrier?n={threads}&key=free{next(_numbers)}"
        streams = [client.request("GET", path) for _ in range(threads)]
        statuses = [client.response(stream).status for stream in streams]
    assert statuses == [200] * threads


def records(server, key, count=1):
    """Return what the application has recorded under a key, once there are ``count`` entries."""
    with H2Client.connect(server) as client:
        found = json.loads(client.get(f"/records?key={key}&n={count}").text)
    assert len(found) >= count, f"only {len(found)} of {count} records under {key}"
    return found


def shown_certificate(server, name="localhost"):
    """Return the certificate that a client gets by SNI, in DER; it trusts it, and speaks HTTP/2."""
    context = server.certs.client_context()
    with H2Client(context.wrap_socket(open_tcp(server), server_hostname=name)) as client:
        client.send_preface()
        assert client.get("/hello", authority=name).status == 200
        return client.sock.getpeercert(binary_form=True)


def wait_idle(server):
    """Wait until no application call is running."""
    with H2Client.connect(server) as client:
        assert client.get("/busy").text == "0"


def assert_aborted(record, stream, code=None):
    """Check the record of an exception: it was the documented one, for this stream."""
    assert record["mro"][0] == "StreamAborted", record
    assert {"ConnectionAbortedError", "ConnectionError", "OSError"} <= set(record["mro"])
    assert record["stream_id"] == stream.stream_id
    if code is not None:
        assert record["code"] == code
