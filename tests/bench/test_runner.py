"""Whole runs, small ones, against real servers."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import pytest

from bench import h2load, processes
from bench.__main__ import main
from bench.client import ClientError, Connection
from bench.loads import Calls, FixedRate, Handshakes, Load, SteadyLoad, Transfer
from bench.measuring import Effort, Outcome, Workload
from bench.overtaking import Overtaking
from bench.probes import IdleConnections, LinkTransfer, OpenStreams, Sleepers, StartUp
from bench.progress import Progress
from bench.results import Metric, Results, Sample
from bench.revisions import at_revisions, exported
from bench.runner import Plan, Runner
from bench.running import ROOT, NotAvailable, serve
from bench.servers import APPS, OTHER, SERVERS, STATUS_WSGI, WSGI, Server, choose, fits
from bench.workloads import WORKLOADS
from tests.bench.waiting import wait_for
from tests.support.tools import require_module, require_tool

BY_NAME = {server.name: server for server in SERVERS}
THREAD = BY_NAME["thread-h2"]
BROKEN = Server("broken", "fails", OTHER, WSGI, ('{python} -c "raise ValueError(42)"',))
TINY = Effort(seconds=0.1, requests=40)


@pytest.fixture(autouse=True)
def load_generator():
    """Most workloads need h2load."""
    require_tool("h2load")


def run(servers, workloads, rounds=1, effort=TINY):
    """Carry out a plan; return its results and what was printed meanwhile."""
    plan, out = Plan(servers, workloads, effort, rounds, server_core=None), io.StringIO()
    results = Results({}, {"references": []}, [], [])
    Runner(plan, results, Progress(plan.steps(), out)).run()
    return results, out.getvalue()


def boot(server, files):
    """Start a server and end it again."""
    with serve(server, "plain", files, core=None):
        pass


def test_servers_take_turns_in_each_round():
    hello = Load("hello", "hello", "Small", connections=2, streams=2)
    results, printed = run([THREAD, BROKEN, BY_NAME["floor"]], [replace(hello, name="hello-2x2")], rounds=2)
    assert [(sample.round, sample.server) for sample in results.samples] == [
        (1, "thread-h2"), (1, "floor"), (2, "thread-h2"), (2, "floor")]  # fmt: skip
    for sample in results.samples:
        assert (sample.requests, sample.failed, sample.note) == (40, 0, "")
        assert sample.values["rate"] > 0
        assert sample.values["cpu"] >= 0
    assert results.unavailable == [("broken", "hello-2x2", "ValueError: 42")]
    assert {server.name: server.reason for server in results.servers} == {
        "thread-h2": "", "broken": "ValueError: 42", "floor": ""}  # fmt: skip
    assert "broken             is not available: ValueError: 42" in printed
    assert not [process for process in processes.tree(os.getpid()) if process.name == "gunicorn"]


@pytest.mark.parametrize("workload", [
    SteadyLoad("hello-20x1", "", "", connections=20, streams=1),
    Load("browser", "", "", connections=2, streams=2, paths=["/hello/a", "/hello/b"], header_sets=[("-H", "a: b")] * 2),
    Load("post", "", "", connections=2, streams=2, upload=1024),
    Transfer("up", "", "", upload=200_000),
    FixedRate("rate", "", "", rate=400, connections=4),
    Handshakes("handshakes", "", "", connections=20),
    Sleepers("sleep", "", "", streams=16),
    IdleConnections("idle", "", "", connections=20, watched_seconds=0.1),
    OpenStreams("streams", "", "", connections=2, streams=10),
    StartUp("start", "", ""),
    LinkTransfer("link-up", "", "", seconds=0.2),
    LinkTransfer("link-down", "", "", seconds=0.2, upload=False),
    Overtaking("link-urgent", "", "", times=1),
], ids=lambda workload: workload.name)  # fmt: skip
def test_every_kind_of_workload_yields_all_of_its_figures(workload):
    results, _ = run([THREAD], [workload])
    (sample,) = results.samples
    assert (sample.failed, sample.note) == (0, "")
    assert list(results.workloads[0].metrics) == list(workload.metrics)
    assert set(sample.values) == {metric.name for metric in workload.metrics}
    assert sample.values[workload.metrics[0].name] > 0 or workload.name in ("idle", "streams")


def test_a_flask_application_is_measured_on_wsgi_servers_alone():
    pytest.importorskip("flask")
    (workload,) = [workload for workload in WORKLOADS if workload.app == "flask"]
    results, _ = run([THREAD, BY_NAME["asgi-h2"]], [replace(workload, connections=2, streams=2)])
    assert [(sample.server, sample.failed) for sample in results.samples] == [("thread-h2", 0)]


def test_calls_of_grpc_are_measured_on_servers_of_grpc_alone():
    require_module("grpc")
    calls = [replace(workload, connections=2, streams=1) if isinstance(workload, Calls) else workload
             for workload in WORKLOADS if workload.app == "grpc"]
    results, _ = run([THREAD, BY_NAME["grpc-thread"], BY_NAME["grpcio"]], calls)
    assert [(sample.server, sample.failed) for sample in results.samples] == [
        ("grpc-thread", 0), ("grpcio", 0)] * len(calls)
    assert all(set(sample.values) == {"rate", "cpu", "p99"} for sample in results.samples)
    wrong = Calls("wrong", "", "", method="Stream", received=7)
    assert "answered 200 with 133000 octets" in run([BY_NAME["grpc-thread"]], [wrong])[0].unavailable[0][2]


def test_a_wrong_response_is_seen_before_anything_is_measured():
    results, _ = run([THREAD], [Load("wrong", "", "", connections=1, streams=1, expected=b"something else")])
    assert results.samples == []
    assert results.unavailable == [("thread-h2", "wrong", "/hello is answered 200 with 12 octets")]


def test_failed_requests_are_counted():
    """A server that refuses all streams but one."""
    conf = THREAD.files["conf.py"] + "\nhttp2_max_concurrent_streams = 1\n"
    few = replace(THREAD, files={"conf.py": conf})
    streams = OpenStreams("streams", "", "", connections=1, streams=5)
    results, _ = run([few], [streams])
    (sample,) = results.samples
    assert (sample.requests, sample.failed, sample.values) == (5, 4, {})
    assert "reset" in sample.note
    assert next(results.failures())[:4] == ("thread-h2", "streams", 4, 5)


@dataclass(frozen=True)
class Breaking(Workload):
    """A workload that ends in an error."""

    error: type[Exception] = h2load.H2LoadError
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("rate", "req/s"),)

    def measure(self, server, effort):
        raise self.error("broke off")


def test_a_measurement_that_breaks_off_is_a_failure():
    results, _ = run([THREAD], [Breaking("breaking", "", "")])
    assert [(sample.failed, sample.note) for sample in results.samples] == [(1, "broke off")]


def test_servers_are_ended_when_a_run_breaks():
    ports = []

    class Unforeseen(Breaking):
        def measure(self, server, effort):
            ports.append(server.port)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run([THREAD], [Unforeseen("breaking", "", "")])
    with pytest.raises(ClientError):
        Connection(ports[0])


def test_a_fresh_process_for_every_measurement():
    seen = []

    @dataclass(frozen=True)
    class Looking(Workload):
        metrics: ClassVar[tuple[Metric, ...]] = (Metric("rate", "req/s"),)

        def measure(self, server, effort):
            seen.append(server.roots[0])
            return Outcome({"rate": 1.0}, 1)

    run([THREAD], [Looking("fresh", "", "", fresh=True), Looking("kept", "", ""), Looking("once", "", "", rounds=1)], 2)
    fresh, again, kept, same, _once = seen
    assert fresh != again
    assert kept == same


def test_a_port_that_another_process_answers_on_is_not_measured(bench_certificate):
    """The server's own process ends, and someone else has taken its port."""
    with serve(THREAD, "plain", bench_certificate, core=None) as other:
        impostor = replace(BROKEN, commands=(f"{{python}} -m tests.bench.forward {{port}} {other.port}",))
        with pytest.raises(NotAvailable, match="another process"):
            boot(impostor, bench_certificate)


# -- the command line --------------------------------------------------------------------------------------------------


def test_the_command_writes_every_form_of_the_report(tmp_path, capsys):
    arguments = ["--servers", "thread-h2,floor", "--workloads", "hello-1x1", "--rounds", "1", "--requests", "20"]
    assert main([*arguments, "--reference", "floor", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "hello-1x1      floor              #1 rate" in printed.err
    assert (tmp_path / "report.md").read_text() == printed.out.removesuffix("\n")
    assert "ThreadWorker, h2 |" in printed.out
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["medians"]["hello-1x1"].keys() == {"thread-h2", "floor"}
    assert data["machine"]["packages"]["gunicorn"]
    assert (tmp_path / "hello-1x1.svg").exists()


@pytest.mark.parametrize("arguments", [["--servers", "nosuch*"], ["--workloads", "hello*,nosuch"],
                                       ["--compare", "nosuchrevision", "HEAD"]])
def test_a_name_that_fits_nothing_ends_the_command(arguments):
    with pytest.raises(SystemExit, match="nosuch"):
        main(arguments)


def test_the_tables_are_listed(capsys):
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    for row in (*SERVERS, *WORKLOADS):
        assert row.name in printed


@pytest.fixture
def endless_run(tmp_path):
    """A run in a process of its own that is in its second round, and the processes of its server."""
    command = [sys.executable, "-m", "bench", "--servers", "thread-h2", "--workloads", "hello-1x1", "--rounds", "1000",
               "--requests", "20", "--output", str(tmp_path)]  # fmt: skip
    # A shell has its background jobs ignore SIGINT, which they pass on.
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL))  # fmt: skip
    try:
        assert any(" #2 " in line for line in iter(process.stderr.readline, ""))
        servers = {each.pid for each in processes.tree(process.pid) if "gunicorn" in command_line(each.pid)}
        assert servers
        yield process, servers
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_servers_and_keeps_what_was_measured(tmp_path, endless_run, number):
    process, servers = endless_run
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert not servers & set(processes.process_table())
    results = Results.from_json((tmp_path / "results.json").read_text())
    assert len(results.samples) >= 2
    assert "cut short" in results.remarks[-1]


def test_servers_do_not_outlive_a_run_that_is_killed(endless_run):
    if not shutil.which("setpriv"):
        pytest.skip("setpriv, of util-linux, is not installed")
    process, servers = endless_run
    process.kill()
    wait_for(lambda: not servers & set(processes.process_table()))


def command_line(pid):
    """Return the command of a process."""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def test_the_status_is_watched_or_silent(bench_certificate):
    """Someone looks at the page of the one; the other has nothing to show."""
    silent = replace(BY_NAME["thread-silent"], interface=STATUS_WSGI)
    with serve(silent, "plain", bench_certificate, core=None) as running, Connection(running.port) as client:
        assert json.loads(client.fetch("/status/json").body)["workers"] == []
    watched = BY_NAME["thread-status"]
    with serve(watched, "plain", bench_certificate, core=None) as running, Connection(running.port) as client:
        def connections():
            """Those of this client and of the other one."""
            return json.loads(client.fetch("/status/json").body)["gauges"].get("connections", {}).get("h2")

        wait_for(lambda: connections() == 2)


# -- the tables --------------------------------------------------------------------------------------------------------


def test_names_are_unique_and_can_stand_in_a_pattern():
    for table in (SERVERS, WORKLOADS):
        names = [row.name for row in table]
        assert len(set(names)) == len(names)
        assert not any(set(name) & set("*?[],@ ") for name in names)


def test_every_workload_has_a_server_and_every_server_a_workload():
    plan = Plan(SERVERS, WORKLOADS, TINY)
    for workload in WORKLOADS:
        assert plan.servers_of(workload)
    for server in SERVERS:
        assert any(server in plan.servers_of(workload) for workload in WORKLOADS)


def test_patterns():
    names = ["thread-fast", "thread-h2", "granian-wsgi"]
    assert choose(names, "granian*, thread-h?") == ["thread-h2", "granian-wsgi"]
    assert choose(names, "*") == names
    assert fits("hello-1x1", "hello*,start")
    assert not fits("hello-1x1", "start")


def test_applications_exist():
    for name in APPS.values():
        module, _, attribute = name.partition(":")
        if module.endswith("flask_app"):
            pytest.importorskip("flask")
        if module.endswith("grpc_services"):
            pytest.importorskip("grpc")
        assert callable(getattr(__import__(module, fromlist=[attribute]), attribute))


# -- revisions ---------------------------------------------------------------------------------------------------------


def test_our_servers_are_measured_at_each_revision():
    servers = at_revisions([THREAD, BY_NAME["granian-wsgi"]], {"a": "/a", "b": "/b"})
    assert [(server.name, server.source) for server in servers] == [
        ("thread-h2@a", "/a"), ("thread-h2@b", "/b"), ("granian-wsgi", "")]  # fmt: skip
    assert at_revisions([THREAD], {}) == [THREAD]


def test_a_revision_is_exported_whole():
    with exported(["HEAD"]) as sources:
        folder = sources["HEAD"]
        assert sorted(os.listdir(folder)) == ["gunicorn_h2"]
        assert os.path.exists(f"{folder}/gunicorn_h2/workers/thread.py")
    assert not os.path.exists(folder)


def test_the_working_tree_is_a_revision_as_well():
    with exported(["."]) as sources:
        assert os.path.samefile(f"{sources['.']}/gunicorn_h2", ROOT / "gunicorn_h2")
    assert (ROOT / "gunicorn_h2" / "__init__.py").exists()


def test_a_server_runs_the_package_of_its_revision(tmp_path, bench_certificate):
    (tmp_path / "gunicorn_h2").mkdir()
    (tmp_path / "gunicorn_h2" / "__init__.py").write_text("raise RuntimeError('the package of another revision')\n")
    server = THREAD.at("other", str(tmp_path))
    with pytest.raises(NotAvailable, match="another revision"):
        boot(server, bench_certificate)


# -- progress ----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Somewhere to write that says it is a terminal."""

    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_lines_that_stay():
    out = Terminal()
    progress = Progress(4, out)
    progress.show("starting")
    progress.step()
    progress.measured(Sample("thread", "hello", 1, {"rate": 1234.5}, 10, 3, 0.5, "reset"), [Metric("rate", "req/s")])
    progress.close()
    assert "] 1/4" in out.getvalue()
    (line,) = [line for line in out.getvalue().replace("\r\x1b[K", "\n").splitlines() if "#1" in line]
    assert line.startswith("hello ")
    assert line.endswith("#1 rate 1,234 req/s, 3 of 10 FAILED (reset) (50% of a core taken by others)")
    assert out.getvalue().endswith("\r\x1b[K")


def test_a_file_gets_plain_lines():
    out = io.StringIO()
    progress = Progress(4, out)
    progress.show("starting")
    progress.step()
    progress.say("a line")
    progress.close()
    assert out.getvalue() == "a line\n"
