"""The application behind proxies and on platforms: what the examples of conf_examples/ serve in the tests.

It has the routes of `wsgi_app` and `features`, each also below /stream, which a proxy may treat in another way.
"""

import functools
import hashlib
import json

from tests.apps import features, wsgi_app
from tests.apps.wsgi_bridge import bridge

FEATURES = {"/trailers", "/request", "/tests.Service/Upper"}


def app(environ, start_response):
    """Find the route."""
    environ["PATH_INFO"] = environ["PATH_INFO"].removeprefix("/stream")
    path = environ["PATH_INFO"]
    if path == "/health":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
        return [b"ok\n"]
    if path == "/digest":
        return digest(environ, start_response)
    if path in FEATURES:
        return features.wsgi(environ, start_response)
    if path.startswith("/grpc.health.v1.Health/"):
        return health()(environ, start_response)
    return wsgi_app.app(environ, unbuffered(environ, start_response))


@functools.cache
def health():
    """The standard health checks of gRPC."""
    from grpc_health.v1 import health, health_pb2_grpc

    from gunicorn_h2.grpc import GrpcWSGI

    services = GrpcWSGI()
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), services)
    return services


def digest(environ, start_response):
    """The size and the digest of the body, however large."""
    size, sha256 = 0, hashlib.sha256()
    while piece := environ["wsgi.input"].read(65_536):
        size += len(piece)
        sha256.update(piece)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"length": size, "sha256": sha256.hexdigest()}).encode()]


def unbuffered(environ, start_response):
    """Have nginx pass on the response as it comes, where the client asks for that."""
    if "HTTP_X_UNBUFFERED" not in environ:
        return start_response
    return lambda status, headers, *more: start_response(status, [*headers, ("X-Accel-Buffering", "no")], *more)


asgi = bridge(app)
