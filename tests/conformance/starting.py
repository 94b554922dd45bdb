"""How a connection begins and ends, TLS, and limits: RFC 9113 sections 3, 9 and 10."""

import ssl
import subprocess

import pytest
from hyperframe.frame import SettingsFrame

from tests.protocol.peer import settings
from tests.support.h2client import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    NO_ERROR,
    PING,
    PREFACE,
    PROTOCOL_ERROR,
    SETTINGS,
    open_socket,
    open_tcp,
    raw_frame,
)

from .rules import Client, Rules, connection_error, malformed

rules = Rules("RFC 9113")
EMPTY_SETTINGS = raw_frame(SETTINGS)
GOOD_SUITES = ("ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256")


def alpn(client, *offered):
    """What the client's server chooses from an ALPN offer."""
    with open_socket(client.server, alpn=offered) as sock:
        return sock.selected_alpn_protocol()


def over_tls(client, **changes):
    """A second client, with another TLS context."""
    context = client.server.certs.client_context(changes.pop("alpn", ("h2",)))
    ciphers = changes.pop("ciphers", None)
    if ciphers:
        context.set_ciphers(ciphers)
    for name, value in changes.items():
        setattr(context, name, value)
    sock = context.wrap_socket(open_tcp(client.server), server_hostname="localhost")
    return Client(sock, client.server.authority)


# -- section 3 ---------------------------------------------------------------------------------------------------------

@rules.rule("3.2", "h2 is chosen by ALPN, and h2c never", only="tls")
def alpn_is_h2(client):
    assert alpn(client, "h2c", "h2") == "h2"
    assert alpn(client, "h2c") is None


@rules.rule("3.3", "the preface without ALPN does not begin HTTP/2 over TLS", only="tls")
def preface_needs_alpn(client):
    with over_tls(client, alpn=()) as other:
        other.sock.setblocking(True)
        other.sock.sendall(PREFACE + EMPTY_SETTINGS)
        assert b"HTTP/1.1 " in other.sock.recv(4096)


@rules.rule("3.3", "the preface alone begins HTTP/2 in the clear", only="clear")
def prior_knowledge(client):
    client.assert_serves()


@rules.rule("3.4", "SETTINGS is the first frame of the server's", preface=False)
def settings_first(client):
    ping = raw_frame(PING, 0, 0, bytes(8))
    client.send_raw(PREFACE + EMPTY_SETTINGS + ping + client.start("/hello", "GET", end=True))
    client.response(client.last)
    first = client.frames[0]
    assert (type(first), first.flags, first.stream_id) == (SettingsFrame, set(), 0)


@rules.rule("3.4", "the client's SETTINGS are acknowledged, behind the server's", preface=False)
def settings_are_acknowledged(client):
    client.send_preface({3: 10})
    client.wait_settings()
    settings = [frame for frame in client.frames if isinstance(frame, SettingsFrame)]
    assert [("ACK" in frame.flags) for frame in settings] == [False, True]


rules.table("3.4", connection_error(PROTOCOL_ERROR, 0), {
    "a preface with one octet wrong": lambda c: PREFACE[:-1] + b"\x0b",
    "a preface that ends early": lambda c: PREFACE[:18] + EMPTY_SETTINGS * 2,
    "a preface of another protocol": lambda c: b"INVALID CONNECTION PREFACE\r\n\r\n",
    "octets of no protocol": lambda c: bytes(100),
    "frames without a preface": lambda c: EMPTY_SETTINGS + raw_frame(PING, 0, 0, bytes(8)),
    "a first frame other than SETTINGS": lambda c: PREFACE + raw_frame(PING, 0, 0, bytes(8)),
    "a first frame of HEADERS": lambda c: PREFACE + raw_frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x82\x84\x87"),
    "a first frame of an unknown type": lambda c: PREFACE + raw_frame(0xFA),
    "a first SETTINGS that is an acknowledgement": lambda c: PREFACE + raw_frame(SETTINGS, ACK),
    "a first SETTINGS on a stream": lambda c: PREFACE + raw_frame(SETTINGS, 0, 1),
    "a first SETTINGS with a value that is none": lambda c: PREFACE + settings((2, 2)),
}, preface=False)
rules.table("3.4", connection_error(FRAME_SIZE_ERROR, 0), {
    "a first SETTINGS of 5 octets": lambda c: PREFACE + raw_frame(SETTINGS, 0, 0, bytes(5)),
}, preface=False)
rules.table("3.4", connection_error(PROTOCOL_ERROR, 0), {
    "TLS in the clear": lambda c: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
}, only="clear", preface=False)
rules.table("3.4", connection_error(PROTOCOL_ERROR, 0), {
    "HTTP/1 though ALPN chose h2": lambda c: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}, only="tls", preface=False)


@rules.rule("3.4", "frames may follow the preface at once", preface=False)
def frames_at_once(client):
    client.send_raw(PREFACE + EMPTY_SETTINGS + client.start("/count") + client.data_frame(1, b"x" * 1000, True))
    assert client.response(client.last).text == '{"length": 1000}'


# -- section 9 ---------------------------------------------------------------------------------------------------------

@rules.rule("9.1", "GOAWAY comes before the end of a connection that the client has done with")
def goaway_before_close(client):
    client.send_raw(raw_frame(GOAWAY, 0, 0, bytes(8)))
    client.wait_closed()
    assert client.goaways == [(1, NO_ERROR)]


@rules.rule("9.1.1", "requests for several authorities share a connection")
def authorities(client):
    for authority in ("localhost", "example.org:8443", "[2001:db8::1]"):
        assert client.get("/hello", authority=authority).status == 200


@rules.rule("9.2", "TLS before 1.2 is refused", only="tls")
def old_tls(client):
    with pytest.raises((ssl.SSLError, ConnectionError)), pytest.warns(DeprecationWarning, match="TLSv1"):
        over_tls(client, ciphers="ALL:@SECLEVEL=0", minimum_version=ssl.TLSVersion.TLSv1,
                 maximum_version=ssl.TLSVersion.TLSv1_1)


@rules.rule("9.2.1", "TLS 1.2 without compression", only="tls")
def tls12(client):
    with over_tls(client, maximum_version=ssl.TLSVersion.TLSv1_2) as other:
        other.send_preface()
        other.assert_serves()
        assert (other.sock.version(), other.sock.compression()) == ("TLSv1.2", None)


@rules.rule("9.2", "a client may name the server, or not", only="tls")
def server_name(client):
    context = client.server.certs.client_context(("h2",))
    context.check_hostname = False
    for name in ("localhost", "another.example", None):
        sock = context.wrap_socket(open_tcp(client.server), server_hostname=name)
        with Client(sock, client.server.authority) as other:
            other.send_preface()
            other.assert_serves()


@rules.rule("9.2.1", "TLS 1.2 is not renegotiated", only="tls")
def no_renegotiation(client):
    """OpenSSL's client asks for it when it has read the server's SETTINGS, and is refused."""
    address = f"{client.server.host}:{client.server.port}"
    command = ["openssl", "s_client", "-connect", address, "-tls1_2", "-alpn", "h2"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
        seen = b""
        while raw_frame(SETTINGS)[3:] not in seen:
            piece = other.stdout.read1()
            assert piece, seen
            seen += piece
        errors = other.communicate(b"R\n", timeout=20)[1]
    assert b"RENEGOTIATING" in errors
    assert b"no renegotiation" in errors


@rules.rule("9.2.2", "a cipher suite that is not prohibited is accepted", only="tls")
def good_cipher(client):
    with over_tls(client, maximum_version=ssl.TLSVersion.TLSv1_2, ciphers=":".join(GOOD_SUITES)) as other:
        other.send_preface()
        other.assert_serves()
        assert other.sock.cipher()[0].endswith("AES128-GCM-SHA256")


@rules.rule("9.2.2", "a cipher suite that is prohibited is not used", only="tls")
def bad_cipher(client):
    with pytest.raises((ssl.SSLError, ConnectionError)):
        over_tls(client, maximum_version=ssl.TLSVersion.TLSv1_2, ciphers="AES128-SHA:ECDHE-ECDSA-AES128-SHA")


@rules.rule("9.2.3", "a client is not asked for a certificate after the handshake", only="tls")
def post_handshake(client):
    with over_tls(client, post_handshake_auth=True) as other:
        other.send_preface()
        other.assert_serves()
        assert other.sock.version() == "TLSv1.3"


# -- section 10 --------------------------------------------------------------------------------------------------------

rules.table("10.3", malformed, {
    f"{octet!r} in :{name}": lambda c, name=name, octet=octet: c.literal(
        [(f":{key}".encode(), value + octet * (key == name)) for key, value in
         {"method": b"GET", "scheme": b"https", "authority": b"localhost", "path": b"/hello"}.items()])
    for name in ("method", "scheme", "authority", "path") for octet in (b"\r\nX: 1", b" HTTP/1.1", b"\0")
})


rules.table("10.5", connection_error(ENHANCE_YOUR_CALM), {
    "PING without end": lambda c: raw_frame(PING, 0, 0, bytes(8)) * 3000,
    "SETTINGS without end": lambda c: EMPTY_SETTINGS * 3000,
    "frames of an unknown type without end": lambda c: raw_frame(0xFA) * 3000,
})
rules.table("10.5.1", connection_error(ENHANCE_YOUR_CALM, 1), {
    "a field block without end": lambda c: raw_frame(HEADERS, 0, 3) + raw_frame(CONTINUATION, 0, 3, bytes(16_384)) * 9,
})


@rules.rule("10.5.1", "too large a field section is answered 431, and kept track of")
def large_section(client):
    fields = client.fields(path="/hello", headers=[("x-late", "indexed"), *[(f"x-{n}", "v" * 1000) for n in range(70)]])
    block = client.encoder.encode(fields)
    stream = client.open()
    pieces = [block[start:start + 16_384] for start in range(0, len(block), 16_384)]
    client.send_raw(raw_frame(HEADERS, END_STREAM, stream.stream_id, pieces[0])
                    + b"".join(raw_frame(CONTINUATION, 0, stream.stream_id, piece) for piece in pieces[1:])
                    + raw_frame(CONTINUATION, END_HEADERS, stream.stream_id))
    assert client.response(stream).status == 431
    # The encoder refers to what that block put into the dynamic table.
    assert client.get("/hello", [("x-69", "v" * 1000)]).status == 200


@rules.rule("10.6", "TLS does not compress", only="tls")
def no_tls_compression(client):
    assert client.sock.compression() is None
