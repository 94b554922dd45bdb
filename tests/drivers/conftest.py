"""Fixtures for the tests of the drivers: a threaded driver that runs in a thread of its own, and clients for it."""

import pytest

from .rig import Rig


@pytest.fixture
def run(certs):
    """A function that runs a driver with an application; at the end it is closed, and its log examined."""
    rigs = []

    def run(application, **options):
        rigs.append(Rig(certs, application, **options))
        return rigs[-1]

    yield run
    for rig in rigs:
        rig.close()
    errors = [error for rig in rigs for error in rig.log.errors]
    assert errors == []


@pytest.fixture(params=[False, True], ids=["clear", "tls"])
def tls(request):
    """Whether the test goes over TLS."""
    return request.param
