"""The gRPC service of the benchmarks, for our workers and for grpcio's own servers.

    python -m bench.apps.grpc_services (threads | aio) PORT CERT KEY

Messages are octets, so that only the servers are compared. `Stream` and `Gather` have `MESSAGES` of them in a call,
`PingPong` as many as its client sends.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from bench.apps import asgi, wsgi
from bench.apps.content import MESSAGE, MESSAGES
from gunicorn_h2.grpc import GrpcASGI, GrpcWSGI

SERVICE = "bench.Messages"
THREADS = 16


def unary(request: bytes, context: Any) -> bytes:
    """Answer a message with a message."""
    return MESSAGE


def stream(request: bytes, context: Any) -> Iterator[bytes]:
    """Answer a message with many."""
    for _ in range(MESSAGES):
        yield MESSAGE


def gather(requests: Iterator[bytes], context: Any) -> bytes:
    """Answer many messages with one."""
    for _ in requests:
        pass
    return MESSAGE


def ping_pong(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    """Answer each message with a message."""
    for _ in requests:
        yield MESSAGE


async def async_unary(request: bytes, context: Any) -> bytes:
    """Answer a message with a message."""
    return MESSAGE


async def async_stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """Answer a message with many."""
    for _ in range(MESSAGES):
        yield MESSAGE


async def async_gather(requests: AsyncIterator[bytes], context: Any) -> bytes:
    """Answer many messages with one."""
    async for _ in requests:
        pass
    return MESSAGE


async def async_ping_pong(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Answer each message with a message."""
    async for _ in requests:
        yield MESSAGE


def register(server: Any, one: Any, many: Any, all_in_one: Any, one_by_one: Any) -> Any:
    """Register the methods with a server."""
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(one),
        "Stream": grpc.unary_stream_rpc_method_handler(many),
        "Gather": grpc.stream_unary_rpc_method_handler(all_in_one),
        "PingPong": grpc.stream_stream_rpc_method_handler(one_by_one),
    }
    server.add_registered_method_handlers(SERVICE, methods)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    return server


app = register(GrpcWSGI(wsgi.app), unary, stream, gather, ping_pong)
asgi_app = register(GrpcASGI(asgi.app), async_unary, async_stream, async_gather, async_ping_pong)


def credentials(cert: str, key: str) -> grpc.ServerCredentials:
    """Return what a server of grpcio needs for TLS."""
    with open(cert, "rb") as cert_file, open(key, "rb") as key_file:
        return grpc.ssl_server_credentials([(key_file.read(), cert_file.read())])


def serve_threads(port: int, cert: str, key: str) -> None:
    """Serve by grpcio's server with threads."""
    server = register(grpc.server(ThreadPoolExecutor(THREADS)), unary, stream, gather, ping_pong)
    server.add_secure_port(f"127.0.0.1:{port}", credentials(cert, key))
    server.start()
    server.wait_for_termination()


async def serve_aio(port: int, cert: str, key: str) -> None:
    """Serve by grpcio's server for asyncio."""
    server = register(grpc.aio.server(), async_unary, async_stream, async_gather, async_ping_pong)
    server.add_secure_port(f"127.0.0.1:{port}", credentials(cert, key))
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    kind, own_port, *files = sys.argv[1:]
    if kind == "aio":
        asyncio.run(serve_aio(int(own_port), *files))
    else:
        serve_threads(int(own_port), *files)
