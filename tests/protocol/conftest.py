"""Fixtures for the tests of the core: every test runs on each engine, delivered whole and byte by byte."""

import hypothesis
import pytest

from .peer import Peer

hypothesis.settings.register_profile(
    "modest", max_examples=60, deadline=None, database=None, print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture])
hypothesis.settings.load_profile("modest")


@pytest.fixture(params=["fast", "h2"])
def engine(request):
    """The engine under test."""
    return request.param


@pytest.fixture(params=[None, pytest.param(1, marks=pytest.mark.uncovered)], ids=["whole", "bytes"])
def cut(request):
    """How many octets are delivered at a time."""
    return request.param


@pytest.fixture
def connect(engine, cut):
    """A function that makes a connection with the given configuration, its setup done unless told otherwise."""
    def connect(settings=(), setup=True, **config):
        return Peer(engine, cut, settings=settings, setup=setup, **config)
    return connect


@pytest.fixture
def peer(connect):
    """A connection with the default configuration, its setup done."""
    return connect()
