"""What the tests of the benchmark share: a certificate, and a run with figures to report on."""

import pytest

from bench.results import Metric, Results, Sample, ServerInfo, WorkloadInfo
from bench.running import certificate
from bench.servers import BUILT_IN, FLOOR, OTHER, OURS, WSGI

RATE, CPU = Metric("rate", "req/s"), Metric("cpu", "us/req", higher_is_better=False, digits=1)
MEMORY = Metric("memory", "KiB/connection", higher_is_better=False, digits=1)


@pytest.fixture(scope="session")
def bench_certificate():
    """The certificate of all servers."""
    with certificate() as files:
        yield files


@pytest.fixture
def results():
    """Three servers and a floor, two workloads, three rounds; one server that failed and one that never booted."""
    return Results(
        machine={"date": "2026-01-02 03:04 UTC", "revision": "abc", "processor": "A <fast> & quiet one", "cores": 2,
                 "kernel": "Linux 6", "python": "CPython 3.11", "openssl": "OpenSSL 3", "packages": {"h2": "4.4"},
                 "h2load": "1.52", "nginx": ""},
        options={"rounds": 3, "amount": "2 seconds", "references": ["granian", "builtin", "absent"], "server_core": 0,
                 "client_core": 1},
        servers=[ServerInfo("thread", "ThreadWorker, <fast>", OURS, WSGI),
                 ServerInfo("builtin", "gthread", BUILT_IN, WSGI),
                 ServerInfo("granian", "granian", OTHER, WSGI),
                 ServerInfo("floor", "the floor", FLOOR, WSGI),
                 ServerInfo("broken", "does not boot", OTHER, WSGI, "no such module")],
        workloads=[WorkloadInfo("hello", "hello, 10 x 10", "Small requests", (RATE, CPU)),
                   WorkloadInfo("idle", "idle connections", "Connections", (MEMORY,))],
        samples=[
            *rounds("thread", "hello", [(120_000, 9.0), (90_000, 10.0), (210_000, 8.0)]),
            *rounds("granian", "hello", [(100_000, 12.0), (60_000, 12.0), (100_000, 12.0)]),
            *rounds("builtin", "hello", [(4_000, 250.0), (5_000, 200.0), (4_500, 220.0)]),
            *rounds("floor", "hello", [(300_000, 2.0), (300_000, 2.0), (300_000, 2.0)]),
            Sample("thread", "idle", 1, {"memory": 20.0}, 5000),
            Sample("granian", "idle", 1, {"memory": 40.0}, 5000, beside=0.4),
            Sample("builtin", "idle", 1, {}, 5000, 4984, note="closed | too soon"),
        ],
        unavailable=[("broken", "hello", "no such module"), ("builtin", "hello", "slow to boot")],
        remarks=["Before the start python (pid 7) takes 99% of a core."],
    )  # fmt: skip


def rounds(server, workload, figures):
    """Yield a sample for each pair of rate and processor time."""
    for number, (rate, cpu) in enumerate(figures, 1):
        yield Sample(server, workload, number, {"rate": float(rate), "cpu": cpu}, 1000)
