"""The figures for Prometheus: as text, and as a collector for prometheus_client's registries.

Names and types follow its conventions: base units, counters that end in _total. The sums are over all workers, as those
of prometheus_client are in its multiprocess mode, so that no series ends with a worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from gunicorn_h2.protocol.errors import Budget, StreamLimit

from .figures import NotServing, figures

__all__ = ["CONTENT_TYPE", "METRICS", "Collector", "Metric", "render"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


class Metric(NamedTuple):
    """One metric: where it is found in the figures, and what it is called."""

    name: str
    kind: str
    key: str
    """The name in the figures; of one value among several, with its own name behind a slash."""
    label: str
    """What tells the values of a metric apart; empty if there is one only."""
    help: str


METRICS = (
    Metric("connections_total", COUNTER, "connections", "protocol", "Connections that clients have opened."),
    Metric("requests_total", COUNTER, "requests", "protocol", "Requests that the application was called for."),
    Metric("refused_requests_total", COUNTER, "refused", "", "HTTP/2 requests that no application was called for."),
    Metric("received_bytes_total", COUNTER, "octets/received", "", "Octets of HTTP/2 received, without TLS."),
    Metric("sent_bytes_total", COUNTER, "octets/sent", "", "Octets of HTTP/2 sent, without TLS."),
    Metric("resets_received_total", COUNTER, "resets_received", "code", "RST_STREAM frames from clients."),
    Metric("resets_sent_total", COUNTER, "resets_sent", "code", "RST_STREAM frames to clients."),
    Metric("goaways_received_total", COUNTER, "goaways_received", "code", "GOAWAY frames from clients."),
    Metric("goaways_sent_total", COUNTER, "goaways_sent", "code", "GOAWAY frames to clients."),
    Metric("ended_connections_total", COUNTER, "closed", "reason", "Connections that have ended, or were refused."),
    Metric("limited_streams_total", COUNTER, "limits", "limit", "Streams ended or refused by a limit."),
    Metric("exceeded_budgets_total", COUNTER, "budgets", "budget", "Connections ended with ENHANCE_YOUR_CALM."),
    Metric("cpu_seconds_total", COUNTER, "cpu", "", "Processor time of the workers."),
    Metric("open_connections", GAUGE, "connections", "protocol", "Connections that are open."),
    Metric("open_streams", GAUGE, "streams", "", "Streams that are open: requests that are not answered yet."),
    Metric("orphaned_calls", GAUGE, "orphaned", "", "Application calls that go on though their stream was reset."),
    Metric("blocked_streams", GAUGE, "blocked/streams", "", "Streams whose response waits for a window."),
    Metric("blocked_connections", GAUGE, "blocked/connections", "", "Connections whose own window is used up."),
    Metric("queued_requests", GAUGE, "queued", "", "Requests that wait to begin."),
    Metric("threads", GAUGE, "threads/all", "", "Threads for requests."),
    Metric("busy_threads", GAUGE, "threads/busy", "", "Threads at work, those that wait for clients included."),
    Metric("waiting_threads", GAUGE, "threads/waiting", "", "Threads that wait for slow clients."),
    Metric("window_growth_bytes", GAUGE, "octets/windows", "", "Octets by which receive windows have grown."),
    Metric("buffered_bytes", GAUGE, "octets/buffered", "", "Response data in memory, waiting for clients."),
    Metric("spooled_bytes", GAUGE, "octets/spooled", "", "Response data in temporary files, waiting for clients."),
    Metric("resident_memory_bytes", GAUGE, "memory", "", "Resident memory of the workers, shared parts included."),
    Metric("workers", GAUGE, "workers", "", "Workers that serve or still end."),
    Metric("unresponsive_workers", GAUGE, "unresponsive", "", "Workers that have not reported for five seconds."),
    Metric("queue_seconds", HISTOGRAM, "queue_seconds", "", "Time for which a request would wait to begin, sampled."),
    Metric("round_trip_seconds", HISTOGRAM, "round_trip_seconds", "", "Round trips of open connections, sampled."),
)

_ZEROS = {
    "limits": {limit.counter: 0 for limit in StreamLimit},
    "budgets": {budget.counter: 0 for budget in Budget},
}
"""Series that are there from the start: `rate` and `increase` do not see the first value of a series."""

_Samples = list[tuple[str, float]]


def render(found: Mapping[str, Any], prefix: str = "gunicorn_h2_") -> str:
    """Return the figures in Prometheus' text format."""
    lines = []
    for metric, samples, total in _values(found):
        name = prefix + metric.name
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} {metric.kind}"]
        if metric.kind is HISTOGRAM:
            lines += [f'{name}_bucket{{le="{bound}"}} {count}' for bound, count in samples]
            lines += [f"{name}_sum {total}", f"{name}_count {samples[-1][1]}"]
        else:
            label = f'{{{metric.label}="%s"}}' if metric.label else "%s"
            lines += [f"{name}{label % value} {count}" for value, count in samples]
    return "\n".join(lines) + "\n"


class Collector:
    """The figures of all workers, for `prometheus_client.CollectorRegistry.register`."""

    def __init__(self, prefix: str = "gunicorn_h2_") -> None:
        self._prefix = prefix

    def describe(self) -> Iterable[Any]:
        """Return nothing: a registry needs no figures before there are any."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield a metric family of prometheus_client's for each metric; nothing in a process that is no worker."""
        # Only those who use it need the library.
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        try:
            found = figures()
        except NotServing:
            return
        for metric, samples, total in _values(found):
            name = self._prefix + metric.name
            if metric.kind is HISTOGRAM:
                buckets = [(bound, float(count)) for bound, count in samples]
                yield HistogramMetricFamily(name, metric.help, buckets=buckets, sum_value=total)
                continue
            make = CounterMetricFamily if metric.kind is COUNTER else GaugeMetricFamily
            family = make(name, metric.help, labels=[metric.label] if metric.label else [])
            for value, count in samples:
                family.add_metric([value] if metric.label else [], count)
            yield family


def _values(found: Mapping[str, Any]) -> Iterator[tuple[Metric, _Samples, float]]:
    """Yield each metric that there is with its samples by label, and the sum of a histogram's times."""
    workers = found["workers"]
    gauges = {
        **found["gauges"],
        "workers": len(workers),
        "unresponsive": sum(not worker["responsive"] for worker in workers),
    }
    groups = {COUNTER: found["counters"], GAUGE: gauges, HISTOGRAM: found["histograms"]}
    for metric in METRICS:
        value: Any = groups[metric.kind]
        for part in metric.key.split("/"):
            value = value.get(part) if value is not None else None
        if value is None:
            continue
        if metric.kind is HISTOGRAM:
            bounds = ["+Inf" if bound is None else str(bound) for bound in value["bounds"]]
            # Without a report there are no buckets.
            if bounds:
                yield metric, list(zip(bounds, accumulate(value["counts"]), strict=True)), value["sum"]
        elif metric.label:
            yield metric, sorted({**_ZEROS.get(metric.key, {}), **value}.items()), 0.0
        else:
            yield metric, [("", value)], 0.0
