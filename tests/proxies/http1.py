"""HTTP/1 on whose framing servers disagree. Each has %b in the place of the number of the request.

What stands behind the body is no request: the connection is to be closed.
"""

from .requests import SMUGGLED

HEAD = b"POST /w HTTP/1.1\r\nHost: localhost\r\nX-Id: %b\r\nConnection: close\r\n"
CHUNKS = b"5\r\n12345\r\n0\r\n\r\n"
_BODY = b"\r\n" + CHUNKS + SMUGGLED

ODD_HTTP1 = {
    "both lengths": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n" + _BODY,
    "both lengths, the other way": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n" + _BODY,
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n" + _BODY,
    "chunked, and not at the end": HEAD + b"Transfer-Encoding: chunked, identity\r\n" + _BODY,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + _BODY,
    "chunked and another": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n" + _BODY,
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n" + _BODY,
    "a folded line": HEAD + b"Transfer-Encoding:\r\n chunked\r\n" + _BODY,
    "a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n" + _BODY,
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345" + SMUGGLED,
    "a length with a sign": HEAD + b"Content-Length: +5\r\n\r\n12345" + SMUGGLED,
    "a list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\n12345" + SMUGGLED,
    "a chunk size with a prefix": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\n12345\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk extension": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;a=\"\n\"\r\n12345\r\n0\r\n\r\n",
    "a chunk without its end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345XX0\r\n\r\n" + SMUGGLED,
    "lines that end with LF": HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\n12345",
    "a request line of four words": b"POST /w x HTTP/1.1\r\nHost: localhost\r\nX-Id: %b\r\n\r\n",
    "an absolute target": b"GET http://localhost/w HTTP/1.1\r\nHost: localhost\r\nX-Id: %b\r\n\r\n",
    "two hosts": b"GET /w HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\nX-Id: %b\r\n\r\n",
    "an upgrade to h2c": b"GET /w HTTP/1.1\r\nHost: localhost\r\nX-Id: %b\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
}
