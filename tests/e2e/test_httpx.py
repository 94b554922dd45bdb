"""httpx with many uploads at once on one connection.

Each task of httpcore's that waits for credit reads from the network in its turn, even if another one has read its
WINDOW_UPDATE by then. Where nothing more comes, all of them wait until they time out.
"""

import asyncio

import httpx
import pytest

from tests.support.kinds import ASGI_KINDS, WSGI_KINDS
from tests.support.server import Server, stop_all

KINDS = {**WSGI_KINDS, **{name: kind._replace(apps={"wsgi": "tests.apps.asgi_app:app"})
                          for name, kind in ASGI_KINDS.items()}}


@pytest.fixture(params=KINDS)
def serve(request, certs, tmp_path):
    """A function that boots a server; at the end it is stopped, and its log examined."""
    servers = []

    def serve(**options):
        servers.append(Server(tmp_path, KINDS[request.param], certs, "wsgi", **options))
        return servers[-1].start()

    yield serve
    stop_all(servers)


def upload(server, bodies):
    """Send bodies all at once on one connection; return what the application has counted for each."""

    async def one(client, body):
        response = await client.post("/count", content=body)
        assert response.http_version == "HTTP/2"
        return response.json()["length"]

    async def all_at_once():
        # A request may wait for its turn; once it has begun, something must come within these seconds.
        options = {"timeout": httpx.Timeout(10, pool=None), "limits": httpx.Limits(max_connections=1)}
        async with httpx.AsyncClient(base_url=server.url, http1=False, http2=True,
                                     verify=server.certs.client_context(alpn=()), **options) as client:
            return await asyncio.gather(*[one(client, body) for body in bodies])

    return asyncio.run(all_at_once())


@pytest.mark.thorough
@pytest.mark.compat
@pytest.mark.parametrize("tls", [True, False], ids=["tls", "clear"])
def test_a_hundred_uploads(serve, tls):
    assert upload(serve(tls=tls, threads=16), [bytes(200_000)] * 100) == [200_000] * 100


def test_uploads_of_many_sizes_with_few_threads_and_small_windows(serve):
    server = serve(threads=3, http2_initial_window_size=20_000, http2_connection_window_size=65_535)
    sizes = [(number * 7919) % 150_000 for number in range(40)]
    assert upload(server, [bytes(size) for size in sizes]) == sizes
