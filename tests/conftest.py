"""Fixtures for all tests: certificates, and Gunicorn servers for the tests that need real processes."""

import gc

import pytest
from hypothesis import is_hypothesis_test

from tests.support.certs import Certs
from tests.support.server import REFERENCE_WORKERS, WORKERS, Server, stop_all

ALL_WORKERS = {**WORKERS, **REFERENCE_WORKERS}
PROCESSES = {"bench", "conformance", "deployments", "docs", "e2e", "faults", "frameworks", "proxies",
             "test_call_count.py", "test_conf_examples.py", "test_examples.py", "test_extras.py", "test_interop.py",
             "test_packaging.py"}
"""What runs whole processes, through lines that tests in memory cover."""


THOROUGH = {
    "conformance", "deployments", "faults", "frameworks", "proxies", "test_attack.py", "test_attacks.py",
    "test_browser.py", "test_call_count.py", "test_connections.py", "test_demo.py", "test_environ.py",
    "test_examples.py", "test_extras.py", "test_graceful.py", "test_handshakes.py", "test_hostile.py",
    "test_interop.py", "test_layertimes.py", "test_logs.py", "test_memory.py", "test_operations.py",
    "test_packaging.py", "test_priorities_on_the_wire.py", "test_profile.py", "test_runner.py", "test_semantics.py",
    "test_slow_uploads.py", "test_socketio.py", "test_unread_responses.py", "test_vanished_clients.py",
}
"""What `make test` leaves to `make thorough`."""
WITHOUT = {
    "alone": {"apps_unit", "conformance", "doctor", "drivers", "fuzz", "grpc", "protocol", "status"},
    "compat": {"bench", "conformance", "doctor", "drivers", "fuzz", "protocol", "status"},
    "thorough": {"apps_unit", "doctor", "drivers", "fuzz", "protocol", "status"},
}
"""The folders where no test has a marker. A run of those that have it does without them, which saves many seconds."""


def _parts(item):
    """The folders and the file of a test."""
    return set(item.path.relative_to(item.config.rootpath).parts)


def pytest_addoption(parser):
    """Let one choose the worker classes to test."""
    parser.addoption("--worker", action="append", choices=sorted(ALL_WORKERS), default=None,
                     help="test this worker class (may be repeated; default: all of the package's)")


def pytest_configure(config):
    """Register the markers."""
    config.addinivalue_line("markers", "compat: the quick subset that is run with every supported Gunicorn and Python")
    config.addinivalue_line("markers", "memory: measures memory")
    config.addinivalue_line("markers", "alone: measures time: make test runs it with no other test beside it")
    config.addinivalue_line("markers", "thorough: takes long, or is about the long run: make thorough, and CI")
    config.addinivalue_line("markers", "covered: make test runs it with coverage, though it runs whole processes")
    config.addinivalue_line("markers", "uncovered: make test runs it without coverage; given out below")


def pytest_ignore_collect(collection_path, config):
    """Leave out folders without tests of the marker that `-m` begins with."""
    marker = config.option.markexpr.partition(" ")[0]
    return collection_path.name in WITHOUT.get(marker, ()) or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leave out of coverage what is slow under it and has others for the same lines: see `_is_covered`."""
    for item in items:
        parts = _parts(item)
        if THOROUGH & parts:
            item.add_marker("thorough")
        if not _is_covered(item):
            item.add_marker("uncovered")
        for marker, folders in WITHOUT.items():
            if folders & parts and item.get_closest_marker(marker):
                raise pytest.UsageError(f"{item.nodeid}: `-m {marker}` would not find it; see WITHOUT in conftest.py")


def _is_covered(item):
    """Whether coverage may learn from a test: not of whole processes, of random examples, or of memory."""
    if item.get_closest_marker("covered"):
        return True
    runs_processes = PROCESSES & _parts(item)
    return not (runs_processes or is_hypothesis_test(item.function) or item.get_closest_marker("memory"))


def pytest_generate_tests(metafunc):
    """Run every test that needs a worker once for each of the chosen worker classes."""
    if "worker" in metafunc.fixturenames:
        names = metafunc.config.getoption("--worker") or list(WORKERS)
        metafunc.parametrize("worker", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    """A certificate authority with a server and a client certificate."""
    return Certs(tmp_path_factory.mktemp("certs"))


@pytest.fixture(scope="session")
def worker(request):
    """The worker class under test."""
    return ALL_WORKERS[request.param]


@pytest.fixture
def boot(tmp_path_factory, certs, worker):
    """A function that boots a server for one test; the server is stopped, and its log examined, at the end."""
    servers = []

    def boot(app="wsgi", start=True, **options):
        server = Server(tmp_path_factory.mktemp("server"), worker, certs, app, **options)
        servers.append(server)
        return server.start() if start else server

    yield boot
    stop_all(servers)


@pytest.fixture(scope="session")
def shared_servers(tmp_path_factory, certs, worker):
    """A function that returns a running server with the given options, booted when it is first asked for."""
    servers = {}

    def get(app="wsgi", tls=True, **options):
        key = (app, tls, repr(sorted(options.items())))
        if key not in servers or not servers[key].running:
            directory = tmp_path_factory.mktemp("server")
            servers[key] = Server(directory, worker, certs, app, tls=tls, **options).start()
        return servers[key]

    get.all = servers
    yield get
    stop_all(servers.values())


@pytest.fixture
def shared(shared_servers):
    """The shared servers; each one's log is examined after the test."""
    yield shared_servers
    for server in shared_servers.all.values():
        server.check_log()


@pytest.fixture
def no_garbage_collector():
    """Only what nothing refers to is freed: a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
