"""The header of the PROXY protocol, in whatever pieces it comes, from whomever."""

import ipaddress
import socket
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gunicorn_h2.protocol.proxy_header import (
    MAX_PROXY_HEADER_SIZE,
    ProxyAddresses,
    ProxyHeaderError,
    ProxyHeaderReader,
    ProxyVersions,
)

V1, V2, AUTO = ProxyVersions(True, False), ProxyVersions(False, True), ProxyVersions(True, True)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
CLIENT_HELLO = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

addresses = st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address) | st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address)
ports = st.integers(0, 65_535)


def v2(block=b"", command=1, kind=0x11, version=2, size=None):
    """A header of version 2."""
    size = len(block) if size is None else size
    return SIGNATURE + struct.pack(">BBH", version << 4 | command, kind, size) + block


IPV4 = socket.inet_aton("203.0.113.7") + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 51_234, 443)
IPV6 = (socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
        + struct.pack(">HH", 51_234, 443))
TOLD4 = ProxyAddresses("TCP4", ("203.0.113.7", 51_234), ("192.0.2.1", 443))
TOLD6 = ProxyAddresses("TCP6", ("2001:db8::7", 51_234), ("2001:db8::1", 443))
TLVS = b"\xea\0\x0d\x01vpce-1234567" + b"\x04\0\0" + b"\x20\0\x05\x01\0\0\0\0"

HEADERS = {
    "tcp4": (b"PROXY TCP4 203.0.113.7 192.0.2.1 51234 443\r\n", TOLD4),
    "tcp6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n", TOLD6),
    "unknown": (b"PROXY UNKNOWN\r\n", None),
    "unknown-more": (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None),
    "longest": (b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n", None),
    "v2-4": (v2(IPV4), TOLD4),
    "v2-6": (v2(IPV6, kind=0x21), TOLD6),
    "v2-4-tlvs": (v2(IPV4 + TLVS), TOLD4),
    "v2-6-tlvs": (v2(IPV6 + TLVS, kind=0x21), TOLD6),
    "v2-local": (v2(command=0, kind=0), None),
    "v2-local-block": (v2(IPV4 + TLVS, command=0, kind=0xFF), None),
    "v2-unspec": (v2(kind=0), None),
    "v2-unspec-tlvs": (v2(TLVS, kind=0x01), None),
    "v2-largest": (v2(IPV4 + bytes(MAX_PROXY_HEADER_SIZE - 28)), TOLD4),
}
MALFORMED = {
    "v1-long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v1-endless": b"PROXY " + b"x" * 101,
    "v1-empty": b"PROXY \r\n",
    "v1-lower": b"PROXY tcp4 1.2.3.4 1.2.3.4 1 1\r\n",
    "v1-udp": b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
    "v1-unknown": b"PROXY UNKNOWNS\r\n",
    "v1-few": b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
    "v1-many": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 1\r\n",
    "v1-spaces": b"PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n",
    "v1-end": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
    "v1-family": b"PROXY TCP4 ::1 ::1 1 1\r\n",
    "v1-family6": b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
    "v1-zone": b"PROXY TCP6 fe80::1%eth0 ::1 1 1\r\n",
    "v1-name": b"PROXY TCP4 localhost 1.2.3.4 1 1\r\n",
    "v1-proxy": b"PROXY TCP4 1.2.3.4 1.2.3 1 1\r\n",
    "v1-octal": b"PROXY TCP4 010.2.3.4 1.2.3.4 1 1\r\n",
    "v1-not-ascii": "PROXY TCP4 1.2.3.4 1.2.3.٤ 1 1\r\n".encode(),
    "v1-port": b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
    "v1-proxy-port": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n",
    "v1-sign": b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n",
    "v1-zeros": b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
    "v1-underscore": b"PROXY TCP4 1.2.3.4 1.2.3.4 1_0 1\r\n",
    "v1-nul": b"PROXY TCP4 1.2.3.4 1.2.3.4\0 1 1\r\n",
    "v1-bare-lf": b"PROXY UNKNOWN \n\r\n",
    "v1-bare-cr": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r \r\n",
    "v2-version": v2(IPV4, version=1),
    "v2-version3": v2(IPV4, version=3),
    "v2-command": v2(IPV4, command=2),
    "v2-short": v2(IPV4[:-1]),
    "v2-short6": v2(IPV6[:-1], kind=0x21),
    "v2-none": v2(),
    "v2-datagrams": v2(IPV4, kind=0x12),
    "v2-no-protocol": v2(IPV4, kind=0x10),
    "v2-unix": v2(bytes(216), kind=0x31),
    "v2-family": v2(IPV4, kind=0x41),
    "v2-large": v2(size=MAX_PROXY_HEADER_SIZE - 15),
    "v2-huge": v2(size=65_535),
}


def fed(pieces, versions=AUTO):
    """Feed what arrives as a socket shows it: what is not taken is shown again, with what came meanwhile."""
    reader, waiting, pieces = ProxyHeaderReader(versions), b"", iter(pieces)
    while not reader.ended:
        piece = next(pieces, None)
        if piece is None:
            assert not waiting
            break
        waiting += piece
        waiting = waiting[reader.feed(waiting):]
    return reader, waiting + b"".join(pieces)


def octets(data):
    """One octet at a time."""
    return [data[number:number + 1] for number in range(len(data))]


@pytest.mark.parametrize(("header", "told"), HEADERS.values(), ids=HEADERS.keys())
@pytest.mark.parametrize("rest", [b"", CLIENT_HELLO, PREFACE, b"PROXY TCP4 9.9.9.9 9.9.9.9 9 9\r\n"],
                         ids=["alone", "tls", "h2c", "another"])
def test_a_header_and_nothing_behind_it(header, told, rest):
    for pieces in ([header + rest], [header, rest], octets(header + rest)):
        reader, left = fed(pieces)
        assert (reader.found, reader.ended, reader.addresses) == (True, True, told)
        assert (reader.octets, left) == (header, rest)


@pytest.mark.parametrize("header", [header for header, _ in HEADERS.values()], ids=HEADERS.keys())
def test_a_header_that_is_cut_off(header):
    for size in range(len(header)):
        reader, left = fed([header[:size]])
        assert (reader.ended, reader.addresses, reader.octets, left) == (False, None, header[:size], b"")


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_header(header):
    for pieces in ([header + CLIENT_HELLO], octets(header + CLIENT_HELLO)):
        with pytest.raises(ProxyHeaderError):
            fed(pieces)


@pytest.mark.parametrize("data", [
    CLIENT_HELLO, PREFACE, b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\nGET / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\n", b"\n",
    b"PROXY\r\n", b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n", SIGNATURE[:-1] + b"\r", b"\0",
], ids=repr)
def test_what_is_no_header(data):
    """What arrives at once is left alone; of what arrives in pieces, those that it might have begun with are kept."""
    reader, left = fed([data])
    assert (reader.found, reader.ended, reader.octets, left) == (False, True, b"", data)
    reader, left = fed(octets(data))
    assert (reader.found, reader.ended, reader.addresses) == (False, True, None)
    assert reader.octets + left == data


@pytest.mark.parametrize(("versions", "header"), [(V1, v2(IPV4)), (V2, HEADERS["tcp4"][0])], ids=["v1", "v2"])
def test_the_other_version_is_no_header(versions, header):
    reader, left = fed(octets(header), versions)
    assert (reader.found, reader.ended, reader.octets, left) == (False, True, b"", header)
    assert fed([header], AUTO)[0].found


def test_an_address_of_version_1_is_kept_as_it_was_written():
    reader, _ = fed([b"PROXY TCP6 2001:DB8:0:0::7 ::1 1 0\r\n"])
    assert reader.addresses == ("TCP6", ("2001:DB8:0:0::7", 1), ("::1", 0))


@pytest.mark.parametrize("address", ["::ffff:192.0.2.7", "::192.0.2.7", "::7", "::", "64:ff9b::c000:207"])
def test_an_ipv4_address_in_one_of_ipv6(address):
    block = socket.inet_pton(socket.AF_INET6, address) * 2 + bytes(4)
    assert fed([v2(block, kind=0x21)])[0].addresses.client[0] == address


@given(addresses, addresses, ports, ports, st.binary(max_size=64), st.booleans(), st.integers(1, 60))
def test_both_versions_tell_the_same(client, proxy, client_port, proxy_port, rest, is_v1, size):
    if client.version != proxy.version:
        proxy = client
    family = f"TCP{client.version}"
    if is_v1:
        header = f"PROXY {family} {client} {proxy} {client_port} {proxy_port}\r\n".encode()
    else:
        header = v2(client.packed + proxy.packed + struct.pack(">HH", client_port, proxy_port) + rest,
                    kind=0x11 if client.version == 4 else 0x21)
    data = header + CLIENT_HELLO
    reader, left = fed([data[start:start + size] for start in range(0, len(data), size)])
    told, to = reader.addresses.client, reader.addresses.proxy
    assert (reader.addresses.family, left) == (family, CLIENT_HELLO)
    assert (ipaddress.ip_address(told[0]), told[1]) == (client, client_port)
    assert (ipaddress.ip_address(to[0]), to[1]) == (proxy, proxy_port)


def outcome(pieces, versions):
    """What comes of octets; what is no header must all be there still."""
    try:
        reader, left = fed(pieces, versions)
    except ProxyHeaderError:
        return "malformed"
    if not reader.found:
        return reader.octets + left
    return reader.ended, reader.addresses, reader.octets, left


@given(st.binary(max_size=150) | st.builds(lambda head, rest: head + rest,
                                           st.sampled_from([b"PROXY ", b"PROXY TCP4 1.2.3.4 ", SIGNATURE, v2()]),
                                           st.binary(max_size=120)),
       st.sampled_from([V1, V2, AUTO]), st.integers(1, 150))
@example(SIGNATURE + b"\x21\x11\xff\xff", AUTO, 1)
def test_pieces_do_not_matter_and_little_is_kept(data, versions, size):
    whole = outcome([data], versions)
    assert outcome([data[start:start + size] for start in range(0, len(data), size)], versions) == whole
    assert outcome(octets(data), versions) == whole


@given(st.binary(max_size=20_000), st.sampled_from([b"PROXY ", SIGNATURE + b"\x21\x11"]))
def test_what_is_kept_is_bounded(data, head):
    reader = ProxyHeaderReader(AUTO)
    try:
        reader.feed(head + data)
    except ProxyHeaderError:
        pass
    assert len(reader.octets) <= MAX_PROXY_HEADER_SIZE
