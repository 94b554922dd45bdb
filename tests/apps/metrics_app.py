"""An application with metrics of its own, by prometheus_client in its multiprocess mode; ours are beside them."""

import os

from prometheus_client import CollectorRegistry, Counter, make_wsgi_app
from prometheus_client.multiprocess import MultiProcessCollector

from gunicorn_h2.status import Collector

orders = Counter("orders", "Orders.")
registry = CollectorRegistry()
MultiProcessCollector(registry)
registry.register(Collector())
metrics = make_wsgi_app(registry)


def app(environ, start_response):
    """Answer `/metrics`; to all else, which is an order, with the number of the process."""
    if environ["PATH_INFO"] == "/metrics":
        return metrics(environ, start_response)
    orders.inc()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
