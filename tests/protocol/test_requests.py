"""Which requests are malformed (RFC 9113 sections 8.1.1, 8.2, 8.3 and 8.5), and what becomes of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gunicorn_h2.protocol import headers
from gunicorn_h2.protocol.errors import ErrorCode
from gunicorn_h2.protocol.events import DataReceived, RequestReceived, RequestRefused, TrailersReceived
from gunicorn_h2.protocol.headers import MalformedRequest, check_trailers, list_size, parse_request

from .peer import HEADER_TABLE_SIZE, Peer, data, fields, rst_stream, settings, window_update

PROTOCOL = ErrorCode.PROTOCOL_ERROR
PSEUDO = {b":method": b"GET", b":scheme": b"https", b":path": b"/", b":authority": b"example.org"}

GOOD = {
    "the least": [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")],
    "pseudo-header fields in any order": list(reversed(fields())),
    "Host that agrees": fields((b"host", b"EXAMPLE.org")),
    "Host alone": fields((b"host", b"example.org"), authority=None),
    "an authority that is empty": fields(authority=b""),
    "a port": fields(authority=b"example.org:8443"),
    "an IPv6 address": fields(authority=b"[2001:db8::1]:443"),
    "the other scheme": fields(scheme=b"http"),
    "a scheme in upper case": fields(scheme=b"HTTPS"),
    "a method of one's own": fields(method=b"M-SEARCH"),
    "OPTIONS *": fields(method=b"OPTIONS", path=b"*"),
    "OPTIONS of a path": fields(method=b"OPTIONS", path=b"/x"),
    "a query": fields(path=b"/a/b?c=d&e=%20?/"),
    "a path of everything that is printed": fields(path=b"/" + bytes(set(range(0x21, 0x7F)) - set(b"#"))),
    "an empty value": fields((b"x-empty", b"")),
    "a value with inner white space": fields((b"x-inner", b"a b\tc")),
    "a value beyond ASCII": fields((b"x-latin", b"caf\xe9 \x80\xff")),
    "every character of a name": fields((b"!#$%&'*+-.^_`|~09az", b"1")),
    "a very long name": fields((b"x" * 100, b"1")),
    "TE of trailers": fields((b"te", b"Trailers")),
    "a content-length of 0 without a body": fields((b"content-length", b"0")),
    "fields that repeat": fields((b"x-a", b"1"), (b"x-a", b"2"), (b"cookie", b"a"), (b"cookie", b"b")),
}

BAD = {
    "no fields": [],
    "no :method": fields(method=None),
    "no :scheme": fields(scheme=None),
    "no :path": fields(path=None),
    "an empty :method": fields(method=b""),
    "an empty :scheme": fields(scheme=b""),
    "an empty :path": fields(path=b""),
    "a method that is no token": fields(method=b"GET /"),
    "a scheme that is none": fields(scheme=b"1http"),
    "a relative path": fields(path=b"index.html"),
    "an absolute URI": fields(path=b"https://example.org/"),
    "* on GET": fields(path=b"*"),
    "a space in the path": fields(path=b"/a b"),
    "a fragment in the path": fields(path=b"/a#b"),
    "a control in the path": fields(path=b"/a\x7fb"),
    "a path beyond ASCII": fields(path=b"/caf\xc3\xa9"),
    "userinfo": fields(authority=b"user@example.org"),
    "userinfo in Host": fields((b"host", b"user@example.org"), authority=None),
    "a space in the authority": fields(authority=b"exa mple.org"),
    "a slash in the authority": fields(authority=b"example.org/x"),
    "Host that differs": fields((b"host", b"example.com")),
    "Host beside an empty authority": fields((b"host", b"example.com"), authority=b""),
    "Host twice": fields((b"host", b"example.org"), (b"host", b"example.org")),
    "a pseudo-header field twice": [(b":path", b"/"), *fields()],
    "a pseudo-header field behind others": [*fields()[:3], (b"x-a", b"1"), (b":path", b"/")],
    "a pseudo-header field behind Host": [*fields()[:2], (b"host", b"example.org"), (b":path", b"/")],
    "a pseudo-header field of responses": [(b":status", b"200"), *fields()],
    "an unknown pseudo-header field": [(b":unknown", b"1"), *fields()],
    "CONNECT with a path": fields(method=b"CONNECT", scheme=None),
    "CONNECT with a scheme": fields(method=b"CONNECT", path=None),
    "CONNECT without an authority": fields(method=b"CONNECT", path=None, scheme=None, authority=None),
    "a name in upper case": fields((b"X-Upper", b"1")),
    "an empty name": fields((b"", b"1")),
    "a name with a space": fields((b"x a", b"1")),
    "a name with a colon": fields((b"x:a", b"1")),
    "a name with a control": fields((b"x\x00a", b"1")),
    "a name beyond ASCII": fields((b"x\xe9", b"1")),
    "a value with CR": fields((b"x-a", b"1\r2")),
    "a value with LF": fields((b"x-a", b"1\n2")),
    "a value with NUL": fields((b"x-a", b"1\x002")),
    "a value with another control": fields((b"x-a", b"1\x1b2")),
    "a value that begins with a space": fields((b"x-a", b" 1")),
    "a value that ends with a tab": fields((b"x-a", b"1\t")),
    "a value that is a space": fields((b"x-a", b" ")),
    "a value that ends with LF": fields((b"x-a", b"1\n")),
    "a pseudo value with LF": fields(path=b"/\nx"),
    "TE of gzip": fields((b"te", b"gzip")),
    "TE of trailers and more": fields((b"te", b"trailers, gzip")),
    "content-length twice": fields((b"content-length", b"0"), (b"content-length", b"0")),
    "a content-length that is negative": fields((b"content-length", b"-1")),
    "a content-length with a sign": fields((b"content-length", b"+0")),
    "a content-length that is no number": fields((b"content-length", b"0x0")),
    "a content-length that is empty": fields((b"content-length", b"")),
    "a content-length of 20 digits": fields((b"content-length", b"0" * 20)),
    "a content-length without a body": fields((b"content-length", b"5")),
    **{f"the field {name.decode()}": fields((name, b"close")) for name in sorted(headers.CONNECTION_SPECIFIC)},
}


@pytest.mark.parametrize("name", GOOD)
def test_good_requests_are_served(peer, name):
    peer.send(peer.headers(1, GOOD[name]))
    assert peer.refused == []
    request, = peer.of(RequestReceived)
    peer.respond(request.stream, b"fine")
    assert peer.answers[1].body == b"fine"


@pytest.mark.parametrize("name", BAD)
def test_malformed_requests_are_reset(peer, name):
    peer.send(peer.headers(1, BAD[name]), window_update(1, 5))
    assert (peer.resets, peer.refused, peer.of(RequestReceived)) == ([(1, PROTOCOL)], [1], [])
    assert (peer.answers[1].status, peer.answers[1].ended) == (400, False)
    peer.assert_alive()


def test_the_answer_to_a_malformed_request_fits_the_clients_settings(connect):
    """Its block begins with the size of the table (RFC 7541 section 4.2), as that of any other response."""
    peer = connect([(HEADER_TABLE_SIZE, 0)])
    peer.send(peer.headers(1, BAD["no :path"]), peer.headers(3))
    assert peer.answers[1].status == 400
    (request,) = peer.of(RequestReceived)
    assert peer.respond(request.stream, b"x").answers[3].status == 200


def test_a_malformed_request_with_a_body_is_reset_and_the_rest_ignored(peer):
    peer.send(peer.headers(1, BAD["no :path"], end=False), data(1, b"body"), data(1, b"more", end=True))
    assert peer.resets == [(1, PROTOCOL)]
    peer.assert_alive()


def test_connect_is_answered_501(peer):
    assert peer.open(method=b"CONNECT", scheme=None, path=None, authority=b"example.org:443") is None
    assert (peer.answers[1].status, peer.answers[1].ended, peer.refused) == (501, True, [1])
    (refusal,) = peer.of(RequestRefused)
    assert (refusal.status, refusal.head.method, refusal.head.authority) == (501, b"CONNECT", b"example.org:443")
    peer.assert_alive()


@pytest.mark.parametrize("scheme", [b"ftp", b"coap+tcp", b"httpx", b"ws"])
def test_a_scheme_that_is_not_served_is_answered_400(peer, scheme):
    """It is no malformed request: other schemes are for gateways (RFC 9113 section 8.3.1)."""
    assert peer.open(scheme=scheme) is None
    assert (peer.answers[1].status, peer.answers[1].ended, peer.refused) == (400, True, [1])
    (refusal,) = peer.of(RequestRefused)
    assert (refusal.status, refusal.reason) == (400, "the scheme is neither http nor https")
    peer.assert_alive()


def test_a_scheme_that_is_not_served_is_never_cached_as_served(peer):
    for _ in range(2):
        assert peer.open(scheme=b"ftp", path=b"/a") is None
        assert peer.open(scheme=b"ftp", path=b"/b") is None
    assert [peer.answers[stream_id].status for stream_id in (1, 3, 5, 7)] == [400] * 4


def test_connect_that_would_go_on_is_reset_after_its_answer(peer):
    peer.open(method=b"CONNECT", scheme=None, path=None, end=False)
    peer.wait(0.2)
    assert (peer.answers[1].status, peer.resets) == (501, [(1, ErrorCode.NO_ERROR)])


def test_the_head_says_what_was_sent(peer):
    head = peer.open((b"content-length", b"12"), (b"expect", b"100-Continue"), (b"host", b"EXAMPLE.ORG"), end=False,
                     method=b"POST", path=b"/p?q").head
    assert (head.method, head.scheme, head.authority, head.path) == (b"POST", b"https", b"example.org", b"/p?q")
    assert head.fields == [(b"content-length", b"12"), (b"expect", b"100-Continue")]
    assert (head.content_length, head.expects_continue) == (12, True)


def test_host_stands_for_an_authority_that_is_missing():
    head = parse_request(fields((b"host", b"example.net:80"), authority=None))
    assert (head.authority, head.fields) == (b"example.net:80", [])


@pytest.mark.parametrize("value", [b"200-ok", b"100-continue, x"])
def test_other_expectations_are_left_to_the_application(value):
    assert not parse_request(fields((b"expect", value))).expects_continue


def test_a_names_verdict_does_not_depend_on_when_it_was_seen():
    for number in range(2_000):
        assert parse_request(fields((b"x-name-%d" % number, b"1"))).fields == [(b"x-name-%d" % number, b"1")]
    for _ in range(2):
        assert parse_request(fields((b"x-after-all-these", b"1"))).fields
        with pytest.raises(MalformedRequest, match="X-After"):
            parse_request(fields((b"X-After", b"1")))


def test_a_section_is_counted_as_the_rfc_says():
    assert list_size([]) == 0
    assert list_size([(b"ab", b"cde"), (b"f", b"")]) == 5 + 1 + 2 * 32


# -- content-length and the body -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [[b"1234"], [b"12", b"34"], [b"1", b"", b"234", b""]])
def test_a_body_as_long_as_announced(connect, sent):
    peer = connect(request_buffer_size=0)
    peer.open((b"content-length", b"4"), end=False, method=b"POST")
    peer.send(*[data(1, piece, end=number == len(sent) - 1) for number, piece in enumerate(sent)])
    assert b"".join(event.data for event in peer.of(DataReceived)) == b"1234"
    assert peer.of(DataReceived)[-1].end_stream
    peer.assert_alive()


@pytest.mark.parametrize("sent", [[b"12345"], [b"123", b"45"], [b"123"], [b"", b""]])
def test_a_body_of_another_length_is_an_error(connect, sent):
    peer = connect(connection_window_size=65_535, request_buffer_size=0)
    peer.open((b"content-length", b"4"), end=False, method=b"POST")
    peer.send(*[data(1, piece, end=number == len(sent) - 1) for number, piece in enumerate(sent)])
    assert (peer.resets, peer.aborted) == ([(1, PROTOCOL)], [(1, PROTOCOL)])
    assert not any(event.end_stream for event in peer.of(DataReceived))
    peer.assert_alive()


def post(peer):
    """Open a stream for a body; return its identifier and its HEADERS frame."""
    stream_id = peer.next_id()
    return stream_id, peer.headers(stream_id, fields(method=b"POST"), end=False)


def told(peer):
    """The events, as stream, end and octets."""
    return [(event.stream.stream_id, event.end_stream, event.body if isinstance(event, RequestReceived) else event.data)
            for event in peer.events]


def test_a_whole_body_comes_with_its_request(peer):
    stream_id, head = post(peer)
    peer.send(head, data(stream_id, b"body", end=True, padding=20))
    assert told(peer) == [(1, True, b"body")]


def test_a_body_in_parts_comes_behind_its_request(peer):
    stream_id, head = post(peer)
    peer.send(head, data(stream_id, b"bo"), data(stream_id, b"dy", end=True))
    assert told(peer) == [(1, False, b""), (1, False, b"bo"), (1, True, b"dy")]


def test_whole_bodies_come_with_their_requests_in_any_order(peer):
    (first, head), (second, next_head), (third, last_head) = post(peer), post(peer), post(peer)
    peer.send(head, next_head, last_head, data(third, end=True), data(second, b"more", end=True),
              data(first, b"body", end=True))
    assert told(peer) == [(1, True, b"body"), (3, True, b"more"), (5, True, b"")]


def test_a_whole_body_behind_an_empty_frame_comes_by_itself(peer):
    stream_id, head = post(peer)
    peer.send(head, data(stream_id), data(stream_id, b"body", end=True))
    assert told(peer) == [(1, False, b""), (1, True, b"body")]


def test_what_was_announced_of_a_stream_that_is_reset_stays(peer):
    stream_id, head = post(peer)
    peer.send(head, rst_stream(stream_id))
    request, reset = peer.events
    assert (request.end_stream, reset.stream) == (False, request.stream)


def test_a_body_comes_by_itself_once_its_request_was_told(peer):
    stream_id, head = post(peer)
    peer.send(head)
    peer.send(data(stream_id, b"body", end=True))
    assert told(peer) == [(1, False, b""), (1, True, b"body")]


def test_padding_does_not_count_as_content(peer):
    peer.open((b"content-length", b"4"), end=False, method=b"POST")
    peer.send(data(1, b"1234", end=True, padding=200))
    assert peer.resets == []


# -- trailers --------------------------------------------------------------------------------------------------------


def test_trailers_end_a_body(peer):
    peer.open(end=False)
    section = [(b"x-sum", b"1"), (b"content-length", b"what"), (b"te", b"trailers")]
    peer.send(data(1, b"body"), peer.headers(1, section))
    trailers, = peer.of(TrailersReceived)
    assert (trailers.stream.stream_id, trailers.fields) == (1, section)
    assert trailers.stream.request_ended
    peer.respond(trailers.stream, b"thanks")
    peer.assert_alive()


@pytest.mark.parametrize("section", [
    [(b":path", b"/")], [(b":status", b"200")], [(b"X-Upper", b"1")], [(b"x-a", b"1\n")], [(b"connection", b"close")],
    [(b"te", b"gzip")]])
def test_malformed_trailers_reset_the_stream(peer, section):
    peer.open(end=False)
    peer.send(peer.headers(1, section))
    assert (peer.resets, peer.aborted) == ([(1, PROTOCOL)], [(1, PROTOCOL)])
    peer.assert_alive()


def test_trailers_without_an_end_reset_the_stream(peer):
    peer.open(end=False)
    peer.send(peer.headers(1, [(b"x-a", b"1")], end=False))
    assert peer.resets == [(1, PROTOCOL)]
    peer.assert_alive()


@pytest.mark.parametrize(("body", "resets"), [(b"1234", []), (b"123", [(1, PROTOCOL)])])
def test_trailers_check_content_length(peer, body, resets):
    peer.open((b"content-length", b"4"), end=False)
    peer.send(data(1, body), peer.headers(1, [(b"x-a", b"1")]))
    assert peer.resets == resets
    peer.assert_alive()


def test_empty_trailers_are_trailers(peer):
    peer.open(end=False)
    peer.send(peer.headers(1, []))
    assert peer.of(TrailersReceived)[0].fields == []


# -- all kinds of things ---------------------------------------------------------------------------------------------

words = st.one_of(st.sampled_from([*PSEUDO, b"host", b"te", b"content-length", b"x-a", b"cookie", b"Upper"]),
                  st.binary(max_size=8))
values = st.one_of(st.sampled_from([*PSEUDO.values(), b"*", b"CONNECT", b"trailers", b"7"]), st.binary(max_size=8))
sections = st.lists(st.tuples(words, values), max_size=8)


@given(sections)
def test_a_section_is_judged_or_refused(section):
    try:
        head = parse_request([*PSEUDO.items(), *section])
    except MalformedRequest:
        return
    assert (head.method, head.scheme) == (b"GET", b"https")
    assert [field for field in section if field[0] != b"host"] == head.fields
    for name, value in head.fields:
        assert name == name.lower()
        assert not set(name) & set(b" :\r\n\0")
        assert not set(value) & set(b"\r\n\0")
        assert value == value.strip(b" \t")


@given(sections)
def test_trailers_are_judged_or_refused(section):
    try:
        assert check_trailers(section) == section
    except MalformedRequest:
        return
    assert not any(name.startswith(b":") or set(value) & set(b"\r\n\0") for name, value in section)


@given(st.lists(sections, max_size=4))
def test_no_section_ends_the_connection_but_by_its_own_code(engine, many):
    peer = Peer(engine)
    for number, section in enumerate(many):
        peer.send(peer.headers(2 * number + 1, section), settings())
    assert {code for _, code in peer.resets} <= {PROTOCOL, ErrorCode.NO_ERROR}
    peer.assert_alive()
