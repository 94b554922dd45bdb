"""The work that the servers do: a table."""

from __future__ import annotations

from bench.apps.content import LARGE, MEDIUM, MESSAGES
from bench.loads import Calls, FixedRate, Handshakes, Load, SteadyLoad, Transfer
from bench.measuring import Workload
from bench.overtaking import Overtaking
from bench.probes import IdleConnections, LinkTransfer, OpenStreams, PingPong, Sleepers, StartUp

SMALL, BODIES, LATENCY, CONNECTIONS = "Small requests", "Bodies", "Latency", "Connections"
LINK, GRPC = "Slow links", "gRPC"

CHROME = (
    'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24", "Google Chrome";v="140"',
    "sec-ch-ua-mobile: ?0",
    'sec-ch-ua-platform: "Linux"',
    "upgrade-insecure-requests: 1",
    "user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "sec-fetch-site: same-origin",
    "sec-fetch-mode: navigate",
    "sec-fetch-dest: document",
    "referer: https://localhost/hello/articles?page=1",
    "accept-encoding: gzip, deflate, br, zstd",
    "accept-language: en-GB,en;q=0.9",
    "priority: u=0, i",
)
"""What Chromium sends beside the pseudo-header fields."""


def browser(number: int) -> tuple[str, ...]:
    """Return the arguments of a browser with cookies of its own."""
    cookie = f"cookie: session=eyJ1c2VyIjoi{number:08d}In0.aNFzSg.q2x{number:05d}VbH0kJ; theme=dark; seen={number % 3}"
    return tuple(word for header in (*CHROME, cookie) for word in ("-H", header))


WORKLOADS: tuple[Workload, ...] = (
    Load("hello-1x1", "hello, 1 connection x 1 stream", SMALL, connections=1, streams=1),
    Load("hello-1x100", "hello, 1 x 100", SMALL, connections=1, streams=100),
    Load("hello-10x10", "hello, 10 x 10", SMALL),
    SteadyLoad("hello-100x1", "hello, 100 x 1", SMALL, connections=100, streams=1),
    SteadyLoad("hello-1000x1", "hello, 1000 x 1", SMALL, connections=1000, streams=1),
    Load(
        "browser", "browser headers, varying paths and cookies, 10 x 10", SMALL,
        paths=[f"/hello/articles/{number:04d}?page={number % 7}&ref=list" for number in range(500)],
        header_sets=[browser(number) for number in range(5)],
    ),
    Load("post-1k", "1 KiB JSON POST, 10 x 10", SMALL, paths=["/upload"], upload=1024),
    Load("flask", "Flask page of 20 rows, session, 10 x 10", SMALL, app="flask", paths=["/shelf/http"], expected=None),
    Load("100k", "100 KiB response, 4 x 1", BODIES, connections=4, streams=1, paths=["/100k"], expected=MEDIUM),
    Transfer("down-10m", "10 MiB down", BODIES, paths=["/10m"], expected=LARGE),
    Transfer("pieces-10m", "10 MiB down in pieces of 64 KiB", BODIES, paths=["/stream"], expected=LARGE),
    Transfer("up-10m", "10 MiB up", BODIES, paths=["/upload"], upload=len(LARGE)),
    FixedRate("rate-2000", "hello at 2000 req/s, 10 connections", LATENCY),
    Sleepers("sleep", "100 requests of 0.5 s on one connection", LATENCY, rounds=1),
    Handshakes("handshakes", "1000 TLS handshakes at once", CONNECTIONS),
    IdleConnections("idle-5000", "5000 idle connections", CONNECTIONS, rounds=1),
    IdleConnections("idle-10000", "10 000 idle connections", CONNECTIONS, connections=10_000, rounds=1),
    OpenStreams("streams", "10 connections x 100 open streams", CONNECTIONS, rounds=1),
    StartUp("start", "start-up", CONNECTIONS),
    Calls("grpc-unary", "unary calls, 10 x 10", GRPC),
    Calls("grpc-unary-1x1", "unary calls, 1 x 1", GRPC, connections=1, streams=1),
    Calls("grpc-stream", "1000 messages to the client, 4 x 1", GRPC, connections=4, streams=1, method="Stream",
          received=MESSAGES),
    Calls("grpc-gather", "1000 messages from the client, 4 x 1", GRPC, connections=4, streams=1, method="Gather",
          sent=MESSAGES),
    PingPong("grpc-ping-pong", "messages both ways by turns, 1 x 1", GRPC),
    LinkTransfer("link-up", "one upload over 50 ms and 25 MB/s", LINK),
    LinkTransfer("link-down", "one download over 50 ms and 25 MB/s", LINK, upload=False),
    Overtaking("link-urgent", "an urgent response beside a bulk one over 100 ms and 1 MB/s", LINK),
)  # fmt: skip
"""Every workload. `--workloads` takes patterns of names."""
