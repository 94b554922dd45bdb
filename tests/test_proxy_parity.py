"""What a PROXY header tells is what Gunicorn's own HTTP/1 parser reads from it: both serve connections of one proxy."""

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.http.unreader import IterUnreader
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gunicorn_h2.apps.request import Proxies, ProxySenders, StreamRequest, TrustedPeers
from gunicorn_h2.drivers.peers import ProxiedPeer, connected_peer
from gunicorn_h2.protocol.headers import parse_request
from gunicorn_h2.protocol.proxy_header import ProxyHeaderError, ProxyHeaderReader, ProxyVersions
from tests.protocol.test_proxy_header import HEADERS

pytestmark = pytest.mark.compat
PROXY = ("127.0.0.1", 4321)
REQUEST = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
HEAD = parse_request([(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"example.org"), (b":path", b"/")])
TELLING = [header for header, told in HEADERS.values() if told]


def config(**options):
    """Gunicorn's configuration, which reads the header."""
    cfg = Config()
    for name, value in {"proxy_protocol": "auto", **options}.items():
        cfg.set(name, value)
    return cfg


def read(data):
    """What our reader makes of octets: the information of a request, and what is left; None without addresses."""
    reader = ProxyHeaderReader(ProxyVersions(True, True))
    try:
        taken = reader.feed(data)
    except ProxyHeaderError:
        return None
    if reader.addresses is None:
        return None
    request = StreamRequest(config()).for_stream(HEAD, ProxiedPeer.of(reader.addresses, PROXY), 1)
    return request.proxy_protocol_info, data[taken:]


def gunicorns(data):
    """What Gunicorn's parser of HTTP/1 makes of them; None if it refuses them."""
    unreader = IterUnreader([data])
    try:
        request = Request(config(), unreader, PROXY)
    except (ParseException, StopIteration):
        return None
    return request.proxy_protocol_info, request.headers


@pytest.mark.parametrize("header", TELLING)
def test_what_a_header_tells(header):
    information, rest = read(header + REQUEST)
    assert rest == REQUEST
    assert gunicorns(header + REQUEST) == (information, [("HOST", "example.org")])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TELLING), st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=2)), max_size=2))
@example(TELLING[0], [(11, b"9")])
def test_what_we_believe_gunicorn_believes(header, changes):
    for place, octets in changes:
        header = header[:place] + octets + header[place + len(octets):]
    ours = read(header + REQUEST)
    if ours is not None and ours[1] == REQUEST:
        assert gunicorns(header + REQUEST)[0] == ours[0]


def test_trust_is_in_the_proxy():
    """The client's address gives it no rights, wherever it says that it is."""
    reader = ProxyHeaderReader(ProxyVersions(True, True))
    reader.feed(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n")
    behind = ProxiedPeer.of(reader.addresses, PROXY)
    stranger = ProxiedPeer.of(reader.addresses, ("192.0.2.1", 1))
    request = StreamRequest(config()).for_stream(HEAD, behind, 1)
    assert (behind, request.peer_addr, request.remote_addr) == (("10.0.0.1", 1), PROXY, PROXY)
    assert behind in TrustedPeers(config())
    assert stranger not in TrustedPeers(config(forwarded_allow_ips="10.0.0.1"))
    assert (connected_peer(stranger), connected_peer(PROXY)) == (("192.0.2.1", 1), PROXY)


def test_which_peers_stand_for_many_clients():
    reader = ProxyHeaderReader(ProxyVersions(True, True))
    reader.feed(b"PROXY TCP4 127.0.0.1 10.0.0.2 1 2\r\n")
    sender = ("192.0.2.1", 1)
    client = ProxiedPeer.of(reader.addresses, sender)
    options = {"proxy_allow_ips": "192.0.2.1", "forwarded_allow_ips": "127.0.0.1"}
    assert sender in ProxySenders(config(**options))
    for mode, peers in (("auto", [PROXY, sender, ""]), ("off", [PROXY, ""])):
        proxies = Proxies(config(**options, proxy_protocol=mode))
        assert [peer for peer in (PROXY, sender, client, "") if peer in proxies] == peers
    assert client not in Proxies(config(proxy_allow_ips="*"))
