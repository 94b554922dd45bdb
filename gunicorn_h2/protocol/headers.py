"""Header fields (RFC 9113 sections 8.2 and 8.3): validation of requests, in one pass, and of responses.

Names come from a small set, so the kind of each name is remembered. All values of a section are searched for
forbidden octets at once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import copy
from typing import Any

from .errors import InvalidResponse
from .priority import Priority, request_priority

__all__ = [
    "Fields",
    "MalformedRequest",
    "RequestHead",
    "ResponseHead",
    "check_response",
    "check_response_trailers",
    "check_trailers",
    "count_fields",
    "list_size",
    "parse_request",
]

Fields = list[tuple[bytes, bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+").fullmatch
TOKEN_OCTETS = rb"!#$%&'*+\-.^_`|~0-9A-Za-z"
"""The octets of a token (RFC 9110 section 5.6.2), for a character class of a regular expression."""
_METHOD = re.compile(rb"[%b]+" % TOKEN_OCTETS).fullmatch
_SCHEME = re.compile(rb"[A-Za-z][A-Za-z0-9+\-.]*").fullmatch
# RFC 3986: path and query are printable ASCII; a fragment is never sent.
_PATH = re.compile(rb"/[!-\"$-~]*").fullmatch
# RFC 3986 section 3.2 without userinfo, which RFC 9113 section 8.3.1 forbids.
_AUTHORITY = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*").fullmatch
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,19}").fullmatch
# RFC 9110 section 5.5: no controls but HTAB; RFC 9113 section 8.2.1: no white space at either end.
_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z").search
_ALLOWED_IN_VALUES = bytes({*b"\t\n", *range(0x20, 0x7F), *range(0x80, 0x100)})
_FORBIDDEN_IN_RESPONSE_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search
_FORBIDDEN_IN_RESPONSE_NAME = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9a-z]").search

# RFC 9113 section 8.2.2.
CONNECTION_SPECIFIC = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
# TE as well: the same section allows it in requests only.
FORBIDDEN_IN_RESPONSES = CONNECTION_SPECIFIC | {b"te"}
# RFC 9110 section 6.5.1: fields for framing, routing, request control, authentication and content handling
# are not allowed in trailers.
FORBIDDEN_TRAILERS = CONNECTION_SPECIFIC | frozenset(
    (
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"expires",
        b"host",
        b"location",
        b"max-forwards",
        b"pragma",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"te",
        b"trailer",
        b"vary",
        b"warning",
        b"www-authenticate",
    )
)
_FIELD_OVERHEAD = 32
_PLAIN, _PSEUDO, _CHECKED, _FORBIDDEN = range(1, 5)
_MAX_KNOWN_NAMES = 1024
_CHECKED_NAMES = frozenset((b"content-length", b"te", b"host", b"expect"))


class MalformedRequest(Exception):
    """A malformed request (RFC 9113 section 8.1.1); the text is for the log only."""


class RequestHead:
    """A request's control data and fields, validated; shared by all requests with the same field block.

    It does not change once a request has it, except for `derived`.
    """

    __slots__ = (
        "authority",
        "content_length",
        "declares_body",
        "derived",
        "expects_continue",
        "fields",
        "is_acceptable",
        "list_size",
        "method",
        "path",
        "priority",
        "protocol",
        "scheme",
        "sibling",
    )

    def __init__(
        self,
        method: bytes,
        scheme: bytes,
        authority: bytes,
        path: bytes,
        fields: Fields,
        content_length: int | None = None,
        expects_continue: bool = False,
        list_size: int = 0,
        sibling: RequestHead | None = None,
        protocol: bytes = b"",
    ) -> None:
        self.method = method
        self.scheme = scheme
        self.authority = authority
        """`:authority`, else the Host field; empty where the client gave neither."""
        self.path = path
        """Path and query as sent; `*` for OPTIONS; empty for CONNECT without `:protocol`."""
        self.protocol = protocol
        """`:protocol` of an extended CONNECT (RFC 8441 section 4); empty in any other request."""
        self.fields = fields
        """The regular fields in order, without Host; names are in lower case."""
        self.content_length = content_length
        """The declared length of the body in octets; None without the field."""
        self.expects_continue = expects_continue
        """Whether the client waits for a 100 before it sends the body (RFC 9110 section 10.1.1)."""
        self.list_size = list_size
        """The size of the section as SETTINGS_MAX_HEADER_LIST_SIZE counts it (RFC 9113 section 6.5.2)."""
        self.is_acceptable = True
        """Whether the request goes to the application; the core itself answers others (400, 421, 431, 501)."""
        self.priority: Priority = request_priority(fields) if sibling is None else sibling.priority
        """What the `priority` field asks for (RFC 9218)."""
        self.declares_body: bool = content_length is not None and (
            not _is_grpc(fields) if sibling is None else sibling.declares_body
        )
        """Whether the body has a declared length, and is not gRPC's, whose messages are answered one by one."""
        self.sibling = sibling
        """A head of the same connection that differs in its path only; None if there was none."""
        self.derived: Any = None
        """What the application layer has made of the head, for all requests that share it; None before."""

    def for_path(self, path: bytes) -> RequestHead | None:
        """Return the head of the same request for another path; None for one that is not absolute or not valid."""
        if not _PATH(path):
            return None
        size = self.list_size - len(self.path) + len(path)
        return RequestHead(
            self.method,
            self.scheme,
            self.authority,
            path,
            self.fields,
            self.content_length,
            self.expects_continue,
            size,
            self,
            self.protocol,
        )

    def with_priority(self, priority: Priority) -> RequestHead:
        """Return a head that differs in its priority, for a request of its own (RFC 9218 section 7)."""
        head = copy(self)
        head.priority = priority
        head.sibling = head.derived = None
        return head


class ResponseHead:
    """A response's status and fields, validated once; any number of responses may share it.

    `fields` are (name, value) pairs without `:status`, names in lower case. Raises InvalidResponse for a field
    that must not be sent.
    """

    __slots__ = ("fields", "status", "block")

    def __init__(self, status: int, fields: Sequence[tuple[bytes, bytes]]) -> None:
        check_response(fields)
        self.status = status
        self.fields = tuple(fields)
        self.block: bytes | None = None
        """The encoded section, kept by a codec whose encoding is the same on every connection."""

    @property
    def section(self) -> Fields:
        """The field section to encode, `:status` first."""
        return [(b":status", b"%d" % self.status), *self.fields]


_known_names: dict[bytes, int] = dict.fromkeys((b":method", b":scheme", b":authority", b":path", b":protocol"), _PSEUDO)


def list_size(fields: Sequence[tuple[bytes, bytes]]) -> int:
    """The size of a field section as SETTINGS_MAX_HEADER_LIST_SIZE counts it (section 6.5.2)."""
    return sum(len(name) + len(value) for name, value in fields) + _FIELD_OVERHEAD * len(fields)


def count_fields(section: Sequence[tuple[bytes, bytes]]) -> int:
    """The number of fields as HTTP/1 would have them: one for the host, and one for all cookies."""
    names = [name for name, _ in section if name[:1] != b":" and name not in (b"host", b"cookie")]
    rest = {name for name, _ in section} & {b"host", b":authority", b"cookie"}
    return len(names) + len(rest) - ({b"host", b":authority"} <= rest)


def parse_request(section: Sequence[tuple[bytes, bytes]]) -> RequestHead:
    """Validate a request's field section and parse it. Raises MalformedRequest."""
    size = _check_values(section)
    pseudo: dict[bytes, bytes] = {}
    checked: dict[bytes, bytes] = {}
    fields: Fields = []
    add = fields.append
    for field in section:
        name, value = field
        kind = _known_names.get(name) or _classify_name(name)
        if kind == _PLAIN:
            add(field)
        elif kind == _PSEUDO:
            if fields or checked or name in pseudo:
                raise MalformedRequest(f"{name!r} is repeated or out of place")
            pseudo[name] = value
        elif kind == _CHECKED:
            if name in checked:
                raise MalformedRequest(f"{name!r} is repeated")
            checked[name] = value
            if name != b"host":
                add(field)
        else:
            raise MalformedRequest(f"{name!r} is not a name of an HTTP/2 field")
    return _request_head(pseudo, checked, fields, size)


def _check_values(section: Sequence[tuple[bytes, bytes]]) -> int:
    """Refuse forbidden octets in values (RFC 9113 section 8.2.1); return the section's size as `list_size` does.

    No value may contain a line feed, so all of them are joined by line feeds and searched at once.
    """
    values = [value for _, value in section]
    text = b"\n".join([b"", *values, b""])
    if (
        text.translate(None, _ALLOWED_IN_VALUES)
        or text.count(b"\n") != len(values) + 1
        or b" \n" in text
        or b"\n " in text
        or (b"\t" in text and (b"\t\n" in text or b"\n\t" in text))
    ):
        bad = next(name for name, value in section if _FORBIDDEN_IN_VALUE(value))
        raise MalformedRequest(f"the value of {bad!r} holds forbidden octets")
    return sum([len(name) for name, _ in section]) + len(text) - 1 + (_FIELD_OVERHEAD - 1) * len(values)


def _classify_name(name: bytes) -> int:
    if name[:1] == b":":
        return _PSEUDO
    if name in CONNECTION_SPECIFIC or not _NAME(name):
        return _FORBIDDEN
    kind = _CHECKED if name in _CHECKED_NAMES else _PLAIN
    if len(_known_names) < _MAX_KNOWN_NAMES and len(name) <= 64:
        _known_names[name] = kind
    return kind


def _request_head(pseudo: dict[bytes, bytes], checked: dict[bytes, bytes], fields: Fields, size: int) -> RequestHead:
    method = pseudo.pop(b":method", b"")
    if not _METHOD(method):
        raise MalformedRequest(f":method is {method!r}")
    authority = _authority(pseudo.pop(b":authority", None), checked.get(b"host"))
    scheme = pseudo.pop(b":scheme", b"")
    path = pseudo.pop(b":path", b"")
    protocol = pseudo.pop(b":protocol", None)
    if pseudo:
        raise MalformedRequest(f"{next(iter(pseudo))!r} is no pseudo-header field of a request")
    if method != b"CONNECT" or protocol is not None:
        _check_target(method, scheme, path)
    elif scheme or path or not authority:
        # RFC 9113 section 8.5.
        raise MalformedRequest("CONNECT takes :authority and nothing else")
    if checked.get(b"te", b"trailers").lower() != b"trailers":
        raise MalformedRequest("TE other than trailers")
    length = checked.get(b"content-length")
    if length is not None and not _CONTENT_LENGTH(length):
        raise MalformedRequest(f"content-length is {length!r}")
    expects_continue = checked.get(b"expect", b"").lower() == b"100-continue"
    if protocol is not None:
        if method != b"CONNECT" or not _METHOD(protocol):
            raise MalformedRequest(f":protocol is {protocol!r} of {method!r}")
        fields = _without_content(fields)
        return RequestHead(method, scheme, authority, path, fields, list_size=size, protocol=protocol.lower())
    return RequestHead(
        method, scheme, authority, path, fields, None if length is None else int(length), expects_continue, size
    )


def _without_content(fields: Fields) -> Fields:
    """Drop what speaks of content: the DATA frames of CONNECT are none (RFC 9110 section 9.3.6)."""
    return [field for field in fields if field[0] not in (b"content-length", b"expect")]


def _check_target(method: bytes, scheme: bytes, path: bytes) -> None:
    if not _SCHEME(scheme):
        raise MalformedRequest(f":scheme is {scheme!r}")
    if not _PATH(path) and not (path == b"*" and method == b"OPTIONS"):
        raise MalformedRequest(f":path is {path!r}")


def _is_grpc(fields: Fields) -> bool:
    return any(name == b"content-type" and value.lower().startswith(b"application/grpc") for name, value in fields)


def _authority(authority: bytes | None, host: bytes | None) -> bytes:
    """The request's authority, without userinfo; `:authority` and Host must agree (RFC 9113 section 8.3.1)."""
    if authority is not None and host is not None and authority.lower() != host.lower():
        raise MalformedRequest("Host differs from :authority")
    value = authority if authority is not None else host or b""
    if not _AUTHORITY(value):
        raise MalformedRequest(f":authority is {value!r}")
    return value


def check_trailers(section: Sequence[tuple[bytes, bytes]]) -> Fields:
    """Validate a request's trailer section (RFC 9113 section 8.1). Raises MalformedRequest."""
    for name, value in section:
        if _FORBIDDEN_IN_VALUE(value) or name in CONNECTION_SPECIFIC or not _NAME(name):
            raise MalformedRequest(f"{name!r} in the trailers")
        if name == b"te" and value.lower() != b"trailers":
            raise MalformedRequest("TE other than trailers in the trailers")
    return list(section)


def check_response(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse response fields that are connection-specific or could split a response downstream.

    `fields` come without `:status`, names in lower case. Raises InvalidResponse.
    """
    for name, _ in fields:
        if not name or _FORBIDDEN_IN_RESPONSE_NAME(name) or name in FORBIDDEN_IN_RESPONSES:
            raise InvalidResponse(f"response field name {name!r}")
    if _FORBIDDEN_IN_RESPONSE_VALUE(b"".join([value for _, value in fields])):
        bad = next(name for name, value in fields if _FORBIDDEN_IN_RESPONSE_VALUE(value))
        raise InvalidResponse(f"the value of response field {bad!r} holds forbidden octets")


def check_response_trailers(fields: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse trailers that must not be sent, pseudo-header fields among them. Raises InvalidResponse."""
    check_response(fields)
    for name, _ in fields:
        if name in FORBIDDEN_TRAILERS:
            raise InvalidResponse(f"{name!r} is not allowed in trailers (RFC 9110 section 6.5.1)")
