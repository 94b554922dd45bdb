"""Requests that are odd, and some that are wrong: drawn at random, the same ones for the same seed.

Each has a number, in the field x-id, by which it is found again, and where it has a body that looks like another
request: for whoever takes the body's end for somewhere else.
"""

import random

from tests.conformance.semantics import BAD_NAMES, BAD_VALUES

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\nX-Id: smuggled\r\n\r\n"
"""An HTTP/1 request for whoever finds one in a body."""
BODY = SMUGGLED * 2
SIZE = len(BODY)


class Request:
    """One request. `legal` is True if it must be served, False if it must be refused, None if either is fine."""

    def __init__(self, number):
        self.number = number
        self.method, self.path, self.authority, self.scheme = b"GET", b"/w/%d" % number, b"localhost", b"http"
        self.fields, self.body, self.trailers, self.extra_pseudo = [], None, [], []
        self.content_length = "right"
        self.legal, self.odd = True, []

    def __repr__(self):
        return f"<{self.number}: {', '.join(self.odd)}: {self.section()} {self.body!r} {self.trailers}>"

    def add(self, name, value):
        """Add a field."""
        self.fields.append((name, value))

    def section(self):
        """The field section of HTTP/2, right or wrong."""
        pseudo = [(b":method", self.method), (b":scheme", self.scheme), (b":authority", self.authority),
                  (b":path", self.path), *self.extra_pseudo]
        lengths = [(b"content-length", length) for length in self.lengths()]
        return [pair for pair in pseudo if pair[1] is not None] + [(b"x-id", b"%d" % self.number)] + lengths \
            + self.fields

    def lengths(self):
        """The values of its content-length fields."""
        if self.content_length == "right":
            return [] if self.body is None else [b"%d" % len(self.body)]
        return self.content_length

    def http1(self, framing="length"):
        """The octets in HTTP/1.1, its body by content-length or chunked."""
        lines = [self.method + b" " + self.path + b" HTTP/1.1", b"Host: " + self.authority,
                 b"X-Id: %d" % self.number]
        lines += [name + b": " + value for name, value in self.fields]
        body = self.body or b""
        if self.body is not None and framing == "chunked":
            lines.append(b"Transfer-Encoding: chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        else:
            lines += [b"Content-Length: " + length for length in self.lengths()]
        return b"\r\n".join([*lines, b"", b""]) + body


def field(name, *values):
    """What adds a field, with one of the values."""
    return lambda request, rng: request.add(name, rng.choice(values))


def with_body(**changes):
    """What makes it a POST with a body, and sets attributes to one of their values."""
    def apply(request, rng):
        request.method, request.body = b"POST", BODY
        for name, values in changes.items():
            value = rng.choice(values)
            setattr(request, name, request.fields + value if name == "fields" else value)
    return apply


def one_of(attribute, *values):
    """What sets something to one of the values."""
    return lambda request, rng: setattr(request, attribute, rng.choice(values))


def repeat(request, rng):
    """A field three times, with another between."""
    for name, value in ((b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b""), (b"x-a", b"3, 4")):
        request.add(name, value)


def crumbs(request, rng):
    """A cookie in pieces."""
    for value in (b"a=1", b"b=2; c=3", b"d=\"4\""):
        request.add(b"cookie", value)


ODD = {
    "method": one_of("method", b"M-SEARCH", b"PROPFIND", b"DELETE", b"OPTIONS", b"PATCH"),
    "path": one_of("path", b"/a%2Fb%00", b"/..%2f//./;x=1,y", b"/?a=?b&c[]=1", b"/~!$&'()*+,;=:@-._", b"//double/"),
    "authority": one_of("authority", b"localhost:80", b"example.org", b"[::1]:8000", b"127.0.0.1"),
    "repeated field": repeat,
    "value": field(b"x-v", b"", b"caf\xe9 \xff", b"a\tb  c", b"v" * 3000, b"\"quoted, text\"", b"GET / HTTP/1.1"),
    "name": field(b"x!#$%&'*+.^`|~", b"1"),
    "other fields": field(b"accept-encoding", b"gzip, chunked", b"identity;q=0"),
    "body": with_body(),
    "empty body": with_body(body=[b""]),
    "content type": field(b"content-type", b"text/plain; charset=utf-8", b"application/grpc"),
    "forwarded": field(b"x-forwarded-for", b"192.0.2.1, 198.51.100.2"),
}
"""What a request may have in HTTP/1 and HTTP/2 alike."""

ODD_H2 = {
    **ODD,
    "cookie crumbs": crumbs,
    "te": field(b"te", b"trailers"),
    "body of unknown length": with_body(content_length=[[]]),
    "trailers": with_body(trailers=[[(b"x-trailer", b"1")]]),
}
"""What a request of HTTP/2 may have."""

DOUBTFUL_H2 = {
    "path characters": one_of("path", b"/\"<>\\^`{|}", b"/a?%zz", b"/%"),
    "authority characters": one_of("authority", b"a_b.example", b"a,b", b"%31", b"localhost:", b":80"),
    "equal content-lengths": with_body(content_length=[
        [b"%d" % SIZE] * 2, [b"%d, %d" % (SIZE, SIZE)], [b"0%d" % SIZE]]),
    "underscore": field(b"x_underscore", b"1"),
    "expect": with_body(fields=[[(b"expect", b"100-continue")], [(b"expect", b"200-maybe")]]),
    "framing in trailers": with_body(trailers=[[(b"content-length", b"5")], [(b"x-a", b"1"), (b"host", b"evil")]]),
    "content type twice": lambda request, rng: request.fields.extend([(b"content-type", b"a/b")] * 2),
    "scheme": one_of("scheme", b"https", b"HTTP"),
}
"""What a server may refuse or serve."""

WRONG_H2 = {
    "name": lambda request, rng: request.add(rng.choice(list(BAD_NAMES.values())), b"1"),
    "value": lambda request, rng: request.add(b"x-v", rng.choice(list(BAD_VALUES.values()))),
    "injected field": field(b"x-v", b"1\r\nTransfer-Encoding: chunked", b"1\nX-Id: smuggled", b"1\r\n\r\n" + SMUGGLED),
    "injected name": lambda request, rng: request.add(b"x-v: 1\r\ntransfer-encoding", b"chunked"),
    "transfer-encoding": with_body(fields=[[(b"transfer-encoding", b"chunked")], [(b"transfer-encoding", b"identity")]],
                                   content_length=["right", []]),
    "connection": field(b"connection", b"close", b"x-id", b"upgrade"),
    "hop by hop": lambda request, rng: request.add(
        rng.choice([b"keep-alive", b"proxy-connection", b"upgrade"]), b"h2c"),
    "te": field(b"te", b"gzip", b"trailers, chunked"),
    "path": one_of("path", b"/a b", b"/a HTTP/1.1\r\nHost: x\r\n\r\nGET /smuggled", b"a", b"http://localhost/",
                   b"/a#b", b"/\xe9", b"/\x7f", b"", b"/\x00"),
    "method": one_of("method", b"GE T", b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\nGET", b"", b"G(T)", b"GET\x00"),
    "authority": one_of("authority", b"a b", b"user@localhost", b"a/b", b"localhost\r\nX-Id: smuggled", b"a?b",
                        b"\xe9"),
    "scheme": one_of("scheme", b"ftp", b"", b"http\r\nx: 1", b"http://localhost/smuggled?"),
    "host": field(b"host", b"evil.example", b"localhost:81"),
    "pseudo-header": one_of("extra_pseudo", [(b":path", b"/smuggled")], [(b":status", b"200")], [(b":protocol", b"x")],
                            [(b":authority", b"evil")], [(b":x", b"1")]),
    "pseudo-header behind": field(b":path", b"/smuggled"),
    "content-length too large": with_body(content_length=[[b"%d" % (SIZE + 1)], [b"9999"]]),
    "content-length too small": with_body(content_length=[[b"0"], [b"%d" % (SIZE - 1)]]),
    "content-lengths": with_body(content_length=[
        [b"%d" % SIZE, b"5"], [b"%d, 5" % SIZE], [b"+%d" % SIZE], [b"0x%x" % SIZE], [b""], [b"-1"], [b"%d 5" % SIZE],
        [b"%de0" % SIZE], [b"\xb2"]]),
    "content-length without body": one_of("content_length", [b"5"]),
    "trailers": with_body(trailers=[[(b":path", b"/smuggled")], [(b"X-A", b"1")], [(b"x-a", b"1\r\n2")],
                                    [(b"transfer-encoding", b"chunked")], [(b"connection", b"close")]]),
}
"""What RFC 9113 sections 8.1 to 8.3 call malformed."""


LEGAL = {id(ODD): True, id(ODD_H2): True, id(DOUBTFUL_H2): None, id(WRONG_H2): False}


def requests(seed, count, *tables):
    """Draw requests: each has one entry of a table, and up to two of those of `ODD`."""
    rng = random.Random(seed)
    for number in range(count):
        request, table = Request(seed * 100_000 + number), rng.choice(tables)
        last = rng.choice([*table])
        for name in rng.sample([name for name in ODD if name != last], rng.choice((0, 1, 1, 2))):
            ODD[name](request, rng)
            request.odd.append(name)
        table[last](request, rng)
        request.odd.append(last)
        request.legal = LEGAL[id(table)]
        yield request


def each_alone(seed, count, table):
    """Draw requests with one entry of a table and nothing else, so many of each entry."""
    rng = random.Random(seed)
    for number in range(count * len(table)):
        request, name = Request(seed * 100_000 + number), [*table][number // count]
        table[name](request, rng)
        request.odd, request.legal = [name], LEGAL[id(table)]
        yield request
