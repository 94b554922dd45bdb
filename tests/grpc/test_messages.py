"""Messages, metadata and statuses on the wire, as hostile clients send them."""

import gzip
import tracemalloc
import zlib

import pytest
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.grpc import metadata
from gunicorn_h2.grpc.call import peer_name
from gunicorn_h2.grpc.messages import check_encoding, decode, encode, parse_prefix
from gunicorn_h2.grpc.metadata import RequestFields, encode_metadata, parse_fields
from gunicorn_h2.grpc.status import Failure, encode_message

ENCODINGS = {"gzip": gzip.compress, "deflate": zlib.compress}


def code_of(call, *arguments):
    """The status of the failure that a call raises."""
    with pytest.raises(Failure) as caught:
        call(*arguments)
    return caught.value.code


# -- messages ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=2_000), st.sampled_from(["identity", *ENCODINGS]))
def test_a_message_comes_back(message, encoding):
    data = encode(message, encoding, -1)
    compressed, length = parse_prefix(data[:5], -1)
    assert length == len(data) - 5
    assert (decode(data[5:], encoding, 2_000) if compressed else data[5:]) == message


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_message_is_compressed_where_that_pays(encoding):
    assert encode(b"x" * 1000, encoding, -1)[0] == 1
    assert len(encode(b"x" * 1000, encoding, -1)) < 100
    assert encode(b"x", encoding, -1) == b"\0\0\0\0\x01x"
    assert encode(b"x" * 1000, "identity", -1)[0] == 0


@pytest.mark.parametrize(("prefix", "limit", "code"), [
    (b"\0\0\0", 10, StatusCode.INTERNAL),
    (b"\2\0\0\0\1", 10, StatusCode.INTERNAL),
    (b"\xff\0\0\0\1", 10, StatusCode.INTERNAL),
    (b"\0\0\0\0\x0b", 10, StatusCode.RESOURCE_EXHAUSTED),
    (b"\1\xff\xff\xff\xff", 10, StatusCode.RESOURCE_EXHAUSTED),
])
def test_a_prefix_that_is_refused(prefix, limit, code):
    assert code_of(parse_prefix, prefix, limit) is code


def test_limits_include_the_limit():
    assert parse_prefix(b"\0\0\0\0\x0a", 10) == (False, 10)
    assert parse_prefix(b"\1\xff\xff\xff\xff", -1) == (True, 2**32 - 1)
    assert decode(gzip.compress(b"x" * 10), "gzip", 10) == b"x" * 10
    assert code_of(decode, gzip.compress(b"x" * 11), "gzip", 10) is StatusCode.RESOURCE_EXHAUSTED
    assert encode(b"x" * 10, "identity", 10)
    assert code_of(encode, b"x" * 11, "identity", 10) is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_makes_no_more_than_the_limit(encoding):
    bomb = ENCODINGS[encoding](bytes(100_000_000))
    tracemalloc.start()
    try:
        assert code_of(decode, bomb, encoding, 1_000_000) is StatusCode.RESOURCE_EXHAUSTED
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("spoil", [lambda data: data[:-1], lambda data: data + b"x", lambda _: b"", lambda _: b"x"])
def test_what_is_not_in_its_encoding(encoding, spoil):
    assert code_of(decode, spoil(ENCODINGS[encoding](b"message")), encoding, -1) is StatusCode.INTERNAL


def test_encodings():
    assert code_of(decode, b"x", "identity", -1) is StatusCode.INTERNAL
    for encoding in ("identity", *ENCODINGS):
        check_encoding(encoding)
    for encoding in ("br", "", "GZIP", "gzip,deflate"):
        assert code_of(check_encoding, encoding) is StatusCode.UNIMPLEMENTED


# -- metadata ----------------------------------------------------------------------------------------------------------


def test_the_fields_of_a_request():
    parsed = parse_fields([
        (b"content-type", b"application/grpc"), (b"te", b"trailers"), (b"content-length", b"5"), (b"host", b"a"),
        (b"grpc-timeout", b"1500m"), (b"grpc-encoding", b"gzip"), (b"grpc-accept-encoding", b"identity, gzip"),
        (b"grpc-previous-rpc-attempts", b"1"), (b"grpc-trace-bin", b"AAE"), (b"user-agent", b"x"), (b"a-bin", b"/w=="),
        (b"a-bin", b"AA,AQ"), (b"a", b"\xe9"), (b"a", b"2"),
    ])
    assert parsed.metadata == (("grpc-trace-bin", b"\0\1"), ("user-agent", "x"), ("a-bin", b"\xff"), ("a-bin", b"\0"),
                               ("a-bin", b"\1"), ("a", "\xe9"), ("a", "2"))
    assert (parsed.timeout, parsed.encoding, parsed.accepted) == (1.5, "gzip", ",identity, gzip")
    assert parsed.metadata[0].key == "grpc-trace-bin"
    assert parse_fields([]) == RequestFields()


@pytest.mark.parametrize(("value", "seconds"), [
    (b"1H", 3600.0), (b"2M", 120.0), (b"99999999S", 99_999_999.0), (b"1m", 0.001), (b"1u", 1e-6), (b"1n", 1e-9),
    (b"0n", 0.0)])
def test_timeouts(value, seconds):
    assert parse_fields([(b"grpc-timeout", value)]).timeout == pytest.approx(seconds)


@pytest.mark.parametrize("field", [
    *[(b"grpc-timeout", value) for value in (b"", b"1", b"S", b"-1S", b"+1S", b"1.5S", b"123456789S", b"1s", b"1S ",
                                             b"1S\n", "\u0661S".encode())],
    *[(b"a-bin", value) for value in (b"A", b"AAAAA", b"!", b"A A=", b"AA==AA")]])
def test_fields_that_are_malformed(field):
    assert parse_fields([(b"x", b"1"), field]) == RequestFields(malformed=parse_fields([field]).malformed)
    assert parse_fields([field]).malformed


def test_what_is_known_of_fields_is_bounded():
    for number in range(2_000):
        assert parse_fields([(b"x-number", b"%d" % number)]).metadata == (("x-number", str(number)),)
    assert len(metadata._known) <= 512
    metadata._known.clear()
    for large in ([(b"x", b"1")] * 100, [(b"x", b"1" * 10_000)]):
        assert parse_fields(large) == parse_fields(large)
    assert metadata._known == {}


def test_metadata_to_send():
    assert encode_metadata(None) == encode_metadata(()) == []
    assert encode_metadata([("a_b.c-0", "x y"), ("b-bin", b"\xff"), ("c", b"raw")]) == [
        ("a_b.c-0", "x y"), ("b-bin", "/w"), ("c", "raw")]


@pytest.mark.parametrize("pair", [
    ("", "x"), ("A", "x"), ("a b", "x"), (":status", "x"), ("grpc-status", "0"), ("content-type", "x"), ("a\n", "x"),
    ("te", "x"), ("a", "\xe9"), ("a", "x\r\ny: z"), ("a", b"\0"), ("connection", "close")])
def test_metadata_that_cannot_be_sent(pair):
    with pytest.raises(ValueError, match=r"cannot be a key|must be printable"):
        encode_metadata([pair])


@pytest.mark.parametrize("pair", [("a-bin", "x"), ("a", 1), ("a", None)])
def test_metadata_of_the_wrong_type(pair):
    with pytest.raises(TypeError):
        encode_metadata([pair])


# -- statuses and addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("details", "encoded"), [
    ("plain text, with ~!@#$^&*()", "plain text, with ~!@#$^&*()"), ("100 %", "100 %25"), ("\t\r\n", "%09%0D%0A"),
    ("\u263a", "%E2%98%BA"), ("\x7f", "%7F"), ("\ud800", "?")])
def test_messages_are_percent_encoded(details, encoded):
    assert encode_message(details) == encoded


@pytest.mark.parametrize(("host", "port", "name"), [
    ("127.0.0.1", 5, "ipv4:127.0.0.1:5"), ("::1", "5", "ipv6:%5B::1%5D:5"), ("", "", "unix:")])
def test_names_of_peers(host, port, name):
    assert peer_name(host, port) == name
