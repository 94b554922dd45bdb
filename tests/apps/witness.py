"""A WSGI application that tells exactly which request it has seen, and one that passes requests on over HTTP/1."""

import http.client
import json
import os
import socket
import sys

seen = set()
UPSTREAM = os.environ.get("UPSTREAM")
"""The Unix socket that `forward` passes requests on to."""


def app(environ, start_response):
    """Answer with the request as JSON. `/seen` has the x-id of each request whose body was read to its end."""
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"].startswith("/smuggled"):
        print("SMUGGLED", environ, file=sys.stderr, flush=True)
    if environ["PATH_INFO"] == "/seen":
        return answer(start_response, sorted(seen))
    fields = {key[5:]: value for key, value in environ.items() if key.startswith("HTTP_")}
    seen.add(fields.get("X_ID", ""))
    fields.update((key, environ[key]) for key in ("CONTENT_TYPE", "CONTENT_LENGTH") if environ.get(key))
    return answer(start_response, {"method": environ["REQUEST_METHOD"], "target": environ["RAW_URI"],
                                   "fields": fields, "body": body.decode("latin-1")})


def forward(environ, start_response):
    """Write the request as HTTP/1 with what the environ has, unchecked, and answer with what comes back."""
    body = environ["wsgi.input"].read()
    lines = [f"{environ['REQUEST_METHOD']} {environ['RAW_URI']} HTTP/1.1", "Connection: close"]
    lines += [f"{key[5:].replace('_', '-')}: {value}" for key, value in environ.items() if key.startswith("HTTP_")]
    lines += [f"Content-Type: {environ['CONTENT_TYPE']}"] if environ.get("CONTENT_TYPE") else []
    lines += [f"Content-Length: {environ.get('CONTENT_LENGTH') or len(body)}"]
    with socket.socket(socket.AF_UNIX) as upstream:
        upstream.settimeout(10)
        upstream.connect(UPSTREAM)
        upstream.sendall("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        response = http.client.HTTPResponse(upstream)
        response.begin()
        start_response(f"{response.status} Passed On", [("Content-Type", "application/json")])
        return [response.read()]


def answer(start_response, value):
    """Answer with JSON."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(value).encode()]
