"""The figures for Prometheus, read by prometheus_client: the text, and the collector in its registries."""

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gunicorn_h2.status import Collector, figures
from gunicorn_h2.status.metrics import METRICS, render
from gunicorn_h2.workers import reports


def families(text):
    """The metric families of a text, by name."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(found, name, **labels):
    """The value of one sample."""
    (sample,) = [sample for family in found.values() for sample in family.samples
                 if sample.name == f"gunicorn_h2_{name}" and sample.labels == labels]
    return sample.value


def test_the_text_is_what_the_parser_takes(serving):
    found = families(render(figures()))
    assert value(found, "requests_total", protocol="h2") == 2468
    assert value(found, "requests_total", protocol="h1") == 10
    assert value(found, "sent_bytes_total") == 2**41
    assert value(found, "cpu_seconds_total") == 2.5
    assert value(found, "resets_received_total", code="cancel") == 8
    assert value(found, "exceeded_budgets_total", budget="too_many_control_frames") == 2
    # An alert needs a series before anything is counted.
    assert value(found, "exceeded_budgets_total", budget="too_many_stream_resets") == 0
    assert value(found, "limited_streams_total", limit="body_rate") == 0
    # One of the two workers has ended: it has nothing open any more.
    assert value(found, "open_streams") == 7
    assert value(found, "open_connections", protocol="h2") == 2
    assert value(found, "busy_threads") == 5
    assert (value(found, "workers"), value(found, "unresponsive_workers")) == (1, 0)


def test_histograms_are_cumulative(serving):
    found = families(render(figures()))
    family = found["gunicorn_h2_queue_seconds"]
    assert family.type == "histogram"
    buckets = {sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")}
    assert (buckets["0.0005"], buckets["0.005"], buckets["10.0"], buckets["+Inf"]) == (2, 6, 6, 8)
    assert value(found, "queue_seconds_count") == 8
    assert value(found, "queue_seconds_sum") == pytest.approx(40.0144)


def test_conventions():
    """Counters end in _total, units are base units, each metric has one type and a sentence of help."""
    names = [metric.name for metric in METRICS]
    assert len({name.removesuffix("_total") for name in names}) == len(names)
    for metric in METRICS:
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert not {"octets", "milliseconds", "ms", "kb", "percent"} & set(metric.name.split("_"))
        assert metric.help.endswith(".")
        assert "\n" not in metric.help + metric.name
        assert metric.help[0].isupper()


def test_every_metric_is_there(serving):
    found = families(render(figures()))
    # No round trip was measured.
    names = {metric.name.removesuffix("_total") for metric in METRICS} - {"round_trip_seconds"}
    assert set(found) == {f"gunicorn_h2_{name}" for name in names}


def test_a_label_is_never_a_worker(serving):
    """A series would end with it."""
    samples = [sample for family in families(render(figures())).values() for sample in family.samples]
    labels = {label for sample in samples for label in sample.labels}
    assert labels == {"protocol", "code", "reason", "limit", "budget", "le"}


def test_the_collector_says_the_same(serving):
    registry = CollectorRegistry()
    registry.register(Collector())
    ours, theirs = families(render(figures())), families(generate_latest(registry).decode())
    assert ours.keys() == theirs.keys()
    for name, family in ours.items():
        mine = {(sample.name, *sample.labels.items()): sample.value for sample in family.samples}
        other = {(sample.name, *sample.labels.items()): sample.value for sample in theirs[name].samples
                 if not sample.name.endswith("_created")}
        assert mine == pytest.approx(other)
        assert (family.type, family.documentation) == (theirs[name].type, theirs[name].documentation)


def test_elsewhere_the_collector_has_nothing(monkeypatch):
    """In the master, say, or in a script: what else is registered is not to suffer."""
    monkeypatch.setattr(reports, "_current", None)
    registry = CollectorRegistry()
    registry.register(Collector())
    assert generate_latest(registry) == b""


def test_names_can_have_another_prefix(serving):
    registry = CollectorRegistry()
    registry.register(Collector(prefix="shop_"))
    assert "shop_requests_total{" in generate_latest(registry).decode()
    assert "shop_requests_total{" in render(figures(), "shop_")


MULTIPROCESS = """
import os
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from gunicorn_h2.status import Collector

orders = Counter("orders", "Orders.")
if not os.fork():
    orders.inc(2)
    os._exit(0)
os.wait()
orders.inc(3)
registry = CollectorRegistry()
MultiProcessCollector(registry)
registry.register(Collector())
print(generate_latest(registry).decode())
"""


def test_beside_the_multiprocess_mode(tmp_path):
    """PROMETHEUS_MULTIPROC_DIR is for the application's metrics: ours need no file there, and are no obstacle."""
    done = subprocess.run([sys.executable, "-c", MULTIPROCESS], env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
                          capture_output=True, text=True, check=True)
    assert families(done.stdout)["orders"].samples[0].value == 5
