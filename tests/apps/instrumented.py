"""A WSGI and an ASGI application inside the middlewares of OpenTelemetry and of Sentry, and what these recorded."""

import json
import threading

import sentry_sdk
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware as AsgiTelemetry
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WsgiTelemetry
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.asgi import SentryAsgiMiddleware
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport

HINT = "</style.css>; rel=preload; as=style"
TRAILER = ("x-checksum", "abc")


class Recorder(Transport):
    """Keeps what Sentry would send."""

    def __init__(self):
        super().__init__()
        self.items, self._lock = [], threading.Lock()

    def capture_envelope(self, envelope):
        """Keep its items."""
        with self._lock:
            self.items += [item.payload.json for item in envelope.items if item.payload.json]


recorder, exporter = Recorder(), InMemorySpanExporter()
sentry_sdk.init("http://key@127.0.0.1:1/1", transport=recorder, traces_sample_rate=1.0, default_integrations=False)
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))


class DeliberateError(Exception):
    """Raised on purpose."""


def told():
    """What both have recorded so far."""
    spans = [{"name": span.name, "kind": span.kind.name, "status": span.status.status_code.name,
              "attributes": dict(span.attributes)} for span in exporter.get_finished_spans()]
    events = [{"type": item.get("type", "event"), "url": item.get("request", {}).get("url", ""),
               "errors": [error["type"] for error in item.get("exception", {}).get("values", ())]}
              for item in recorder.items]
    return json.dumps({"spans": spans, "events": events}).encode()


def wsgi_application(environ, start_response):
    """Early hints, a body in pieces and trailers; an error; a body that is read; what was recorded."""
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise DeliberateError
    environ["wsgi.early_hints"]([("Link", HINT)])
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield told() if path == "/told" else b"one,"
    yield b"" if path == "/told" else b"two:" + body
    environ["gunicorn.http2.send_trailers"]([TRAILER])


async def asgi_application(scope, receive, send):
    """The same for ASGI."""
    if scope["type"] != "http":
        return
    if scope["path"] == "/fail":
        raise DeliberateError
    await send({"type": "http.response.early_hint", "links": [HINT.encode()]})
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")],
                "trailers": True})
    first, second = (told(), b"") if scope["path"] == "/told" else (b"one,", b"two:" + message.get("body", b""))
    await send({"type": "http.response.body", "body": first, "more_body": True})
    await send({"type": "http.response.body", "body": second})
    await send({"type": "http.response.trailers", "headers": [tuple(part.encode() for part in TRAILER)]})


wsgi = SentryWsgiMiddleware(WsgiTelemetry(wsgi_application, tracer_provider=provider))
asgi = SentryAsgiMiddleware(AsgiTelemetry(asgi_application, tracer_provider=provider))
