"""Signals, reloads, limits and instrumentation: what an operator does with a server and learns from it."""

import contextlib
import json
import signal
import socket
import textwrap
import threading

import httpx
import pytest

from tests.e2e.conftest import http_client
from tests.support.checks import assert_aborted, prove_all_free, records
from tests.support.h2client import CANCEL, NO_ERROR, PROTOCOL_ERROR, H2Client, pattern
from tests.support.load import Load
from tests.support.tools import curl

compat = pytest.mark.compat
LAST = 2**31 - 1


# -- the end of a worker -----------------------------------------------------------------------------------------------

@compat
def test_sigterm_lets_requests_finish(boot, tls, gate):
    """GOAWAY(2^31-1), then the final GOAWAY with the true last stream; the response, and only then the end."""
    server = boot("wsgi", tls=tls, threads=4)
    with H2Client.connect(server) as client:
        client.get("/hello")
        slow = client.request("GET", gate.path("/gate-stream"))
        gate.wait_inside()
        server.signal(signal.SIGTERM)
        assert client.wait_goaway() == (LAST, NO_ERROR)
        assert client.wait_goaway(2) == (slow.stream_id, NO_ERROR)
        gate.release()
        assert client.response(slow).text == "before\nafter\n"
        client.wait_closed()
    assert server.wait_exit() == 0


def test_streams_opened_before_the_final_goaway_are_served(boot, gate):
    """The PING is not answered until another request has been sent: it belongs to the accepted ones."""
    server = boot("wsgi", threads=4, http2_drain_timeout=3, graceful_timeout=30)
    with H2Client.connect(server, auto_ping=False) as client:
        slow = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        server.signal(signal.SIGTERM)
        assert client.wait_goaway() == (LAST, NO_ERROR)
        client.wait_for(lambda: client.pings, "the server's PING")
        late = client.request("GET", "/hello")
        client.send_raw(client_ping_answer(client.pings[0]))
        assert client.wait_goaway(2) == (late.stream_id, NO_ERROR)
        gate.release()
        assert [client.response(stream).status for stream in (late, slow)] == [200, 200]
        client.wait_closed()
    assert server.wait_exit() == 0


def client_ping_answer(payload):
    """Return the bytes of a PING acknowledgement."""
    return b"\0\0\x08\x06\x01\0\0\0\0" + payload


def test_streams_beyond_the_final_goaway_are_not_processed(boot, gate, key):
    """They are ignored or refused, never half done."""
    server = boot("wsgi", threads=4)
    with H2Client.connect(server) as client:
        slow = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        server.signal(signal.SIGTERM)
        client.wait_goaway(2)
        mark = server.log_mark()
        late = client.request("GET", f"/closing?key={key}")
        gate.release()
        assert client.response(slow).status == 200
        client.wait_closed()
        assert (late.headers, late.reset) in [(None, None), (None, 7)]
    assert server.wait_exit() == 0
    assert f"key={key}" not in "\n".join(server.log.splitlines()[mark:])


def test_a_client_that_does_not_answer_ping_delays_the_end_only_a_little(boot):
    server = boot("wsgi", threads=4, http2_drain_timeout=1)
    with H2Client.connect(server, auto_ping=False) as client:
        client.get("/hello")
        server.signal(signal.SIGTERM)
        client.wait_goaway()
        client.wait_closed()
    assert server.wait_exit(8) == 0


def test_idle_connections_do_not_delay_the_end(boot, tls):
    """Each idle connection gets its GOAWAY, and the server is gone well before graceful_timeout."""
    server = boot("wsgi", tls=tls, threads=2, keepalive=60, graceful_timeout=60)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(H2Client.connect(server)) for _ in range(10)]
        for client in clients:
            client.get("/hello")
        server.signal(signal.SIGTERM)
        for client in clients:
            assert client.wait_goaway()[1] == NO_ERROR
            client.wait_closed()
            client.close()
        assert server.wait_exit(10) == 0


def test_unfinished_handshakes_do_not_delay_the_end(boot):
    server = boot("wsgi", threads=2, graceful_timeout=60, http2_handshake_timeout=60)
    with open_plain(server), H2Client.connect(server, preface=False):
        H2Client.connect(server).get("/hello")
        server.signal(signal.SIGTERM)
        assert server.wait_exit(10) == 0


def open_plain(server):
    """Open a TCP connection that never says anything."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def test_graceful_timeout_ends_requests_that_do_not(boot, gate):
    """A request that does not come to its end within graceful_timeout is given up."""
    server = boot("wsgi", threads=2, graceful_timeout=1)
    server.expect("Traceback", "SIGKILL", "SystemExit", "StreamAborted")
    with H2Client.connect(server) as client:
        client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        server.signal(signal.SIGTERM)
        client.wait_closed()
    gate.release()
    server.wait_exit(10)


def test_transfers_in_progress_are_finished(boot, tls):
    """Both directions, far beyond any window, while the worker is ending."""
    server = boot("wsgi", tls=tls, threads=4)
    with H2Client.connect(server) as client:
        client.keep_frames = False
        down = client.request("GET", "/bytes?n=20000000")
        up = client.request("POST", "/count", body=b"x" * 100_000, end=False)
        client.wait_for(lambda: down.received > 100_000, "some data")
        server.signal(signal.SIGTERM)
        assert client.wait_goaway(2) == (up.stream_id, NO_ERROR)
        client.send_body(up, pattern(5_000_000))
        assert client.response(up).text == '{"length": 5100000}'
        assert client.response(down).received == 20_000_000
        client.wait_closed()
    assert server.wait_exit() == 0


def test_a_stuck_request_does_not_keep_an_old_worker(boot, gate):
    """After a reload the old worker is gone within graceful_timeout, although a thread of it never returned."""
    server = boot("wsgi", threads=2, graceful_timeout=1)
    server.expect("Traceback", "SIGKILL", "SystemExit", "StreamAborted")
    old = server.worker_pid
    with H2Client.connect(server) as client:
        client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        server.reload()
        server.wait_log(rf"Worker exiting \(pid: {old}\)", timeout=15)
        client.wait_closed()
    prove_all_free(server, 2)


def test_sigquit_ends_at_once(boot, gate):
    server = boot("wsgi", threads=2, graceful_timeout=30)
    server.expect("Traceback", "SIGKILL", "SystemExit", "StreamAborted")
    with H2Client.connect(server) as client:
        client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        server.signal(signal.SIGQUIT)
        client.wait_closed()
    gate.release()
    server.wait_exit(10)


# -- reloads -----------------------------------------------------------------------------------------------------------

def set_version(version):
    """The conf file's text that gives the application a version."""
    return f"raw_env = ['APP_VERSION={version}']"


@compat
def test_sighup_reloads(boot, tls, gate):
    """New requests reach the new worker; a request in progress ends in the old one; settings are read again."""
    server = boot("wsgi", tls=tls, threads=4, code=set_version("one"))
    with H2Client.connect(server) as client:
        assert client.wait_settings()[3] == 100
        old = json.loads(client.get("/version").body)
        assert old["version"] == "one"
        slow = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        server.reload(set_version("two"), http2_max_concurrent_streams=7)
        with H2Client.connect(server) as other:
            assert other.wait_settings()[3] == 7
            new = json.loads(other.get("/version").body)
        assert client.wait_goaway() == (LAST, NO_ERROR)
        assert client.wait_goaway(2) == (slow.stream_id, NO_ERROR)
        gate.release()
        assert json.loads(client.response(slow).body) == {"pid": old["pid"]}
        client.wait_closed()
    assert new["version"] == "two"
    assert new["pid"] != old["pid"]


@pytest.mark.timeout(120)
def test_ten_reloads_lose_no_request(boot, tls):
    """Continuous load from clients that obey GOAWAY."""
    server = boot("wsgi", tls=tls, threads=4, code=set_version("0"), http2_drain_timeout=1)
    with Load(server) as load:
        for number in range(1, 11):
            server.reload(set_version(number))
            load.wait_answered(5)
    assert load.lost == []
    assert load.connections >= 30


@compat
@pytest.mark.timeout(120)
def test_max_requests_loses_no_request(boot, tls):
    """A worker that has served its share is replaced under load; nothing is lost."""
    server = boot("wsgi", tls=tls, threads=4, workers=2, max_requests=40, max_requests_jitter=10)
    mark = 0
    with Load(server) as load:
        for _ in range(5):
            mark = server.wait_log("Autorestarting worker", after=mark).line_number + 1
        load.wait_answered(5)
    assert load.lost == []
    server.wait_settled()


def test_reload_setting(boot, tmp_path):
    """With `reload`, a changed source file replaces the worker, and its clients are told."""
    source = tmp_path / "changing.py"
    text = """
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"%s"]
    """
    source.write_text(textwrap.dedent(text % "old"))
    server = boot("changing:app", threads=2, keepalive=30, reload=True, reload_engine="poll",
                  env={"PYTHONPATH": str(tmp_path)})
    with H2Client.connect(server) as client:
        assert client.get("/").text == "old"
        mark = server.log_mark()
        # A change before the reloader's first look, of one a second, is none to it.
        for _ in range(5):
            source.write_text(textwrap.dedent(text % "brand new"))
            if server.has_log("Worker reloading", timeout=2):
                break
        server.wait_log("Worker reloading", after=mark)
        server.wait_log("is ready", after=mark)
        client.wait_closed()
    with H2Client.connect(server) as client:
        assert client.get("/").text == "brand new"


def test_httpx_in_the_middle_of_a_request(boot, gate):
    """Clients on the h2 library fail at a GOAWAY in the middle of a request, so it waits for a quiet moment."""
    server = boot("wsgi", threads=4, http2_drain_timeout=5, graceful_timeout=30)
    answers = []
    with http_client(server) as http:
        thread = threading.Thread(target=lambda: answers.append(http.get(gate.path("/gate"))))
        thread.start()
        gate.wait_inside()
        server.signal(signal.SIGTERM)
        server.wait_log("Handling signal: term")
        gate.release()
        thread.join(10)
    assert [answer.status_code for answer in answers] == [200]
    assert server.wait_exit() == 0


def test_httpx_after_a_reload(boot, key):
    """httpx does not notice the end of an idle connection: its next request fails, unprocessed, the one after works."""
    server = boot("wsgi", threads=4, keepalive=30)
    with http_client(server) as http:
        old = http.get("/version").json()["pid"]
        server.reload()
        server.wait_log(rf"Worker exiting \(pid: {old}\)")
        with contextlib.suppress(httpx.RemoteProtocolError):
            http.get(f"/closing?key={key}")
            records(server, key)
        assert http.get("/version").json()["pid"] != old


def test_http1_requests_survive_the_end_as_before(boot, gate):
    """HTTP/1.1 is in Gunicorn's hands: a request in progress is finished."""
    server = boot("wsgi", threads=4)
    answers = []
    with http_client(server, http2=False) as http:
        thread = threading.Thread(target=lambda: answers.append(http.get(gate.path("/gate"))))
        thread.start()
        gate.wait_inside()
        server.signal(signal.SIGTERM)
        server.wait_log("Handling signal: term")
        gate.release()
        thread.join(10)
    assert [answer.status_code for answer in answers] == [200]
    assert server.wait_exit() == 0


# -- limits in time and number -----------------------------------------------------------------------------------------

def test_keepalive_closes_idle_connections(boot, tls):
    """GOAWAY(NO_ERROR) with the last stream, then the end."""
    server = boot("wsgi", tls=tls, threads=2, keepalive=1)
    with H2Client.connect(server) as client:
        client.get("/hello")
        assert client.wait_goaway()[1] == NO_ERROR
        assert client.goaways[-1][0] in (1, LAST)
        client.wait_closed()
        assert client.goaways[-1] == (1, NO_ERROR)


def test_keepalive_spares_busy_connections(boot, gate):
    """An open stream keeps the connection alive however long it takes."""
    server = boot("wsgi", threads=4, keepalive=1)
    with H2Client.connect(server) as busy, H2Client.connect(server) as idle:
        slow = busy.request("GET", gate.path("/gate"))
        gate.wait_inside()
        idle.get("/hello")
        idle.wait_closed()
        busy.ping()
        gate.release()
        assert busy.response(slow).status == 200


def test_no_keepalive(boot):
    """With keepalive 0 a connection ends with its last response, and says which one that was."""
    server = boot("wsgi", threads=2, keepalive=0)
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200
        assert client.wait_goaway() == (1, NO_ERROR)
        client.wait_closed()


def test_pings_do_not_keep_an_idle_connection(boot):
    """Only streams count as use."""
    server = boot("wsgi", threads=4, keepalive=1)
    with H2Client.connect(server) as client:
        client.get("/hello")
        with contextlib.suppress(AssertionError, OSError):
            for _ in range(10_000):
                client.ping()
        client.wait_closed()
        assert client.goaways


@compat
def test_timeout_ends_a_response_that_is_not_read(boot, key):
    """After `timeout` without progress: RST_STREAM(CANCEL), and a write() that waits raises; the connection goes on."""
    server = boot("wsgi", threads=2, timeout=2, keepalive=30, http2_response_spool_size=0)
    with H2Client.connect(server, auto_window=False) as client:
        client.grant(1_000_000)
        stream = client.request("GET", f"/bytes?n=10000000&key={key}")
        client.response(stream)
        assert (stream.received, stream.reset) == (65_535, CANCEL)
        (record,) = records(server, key)
        assert_aborted(record, stream)
        assert client.get("/hello").status == 200
    prove_all_free(server, 2)


def test_timeout_ends_an_upload_that_stands_still(boot, key):
    """A client that stops in the middle of its body does not keep a thread for longer than `timeout`."""
    server = boot("wsgi", threads=1, timeout=2, keepalive=30)
    with H2Client.connect(server) as client:
        stream = client.request("POST", f"/count?key={key}", body=b"x" * 100, end=False)
        assert client.response(stream).reset == CANCEL
        (record,) = records(server, key)
        assert_aborted(record, stream)
        assert client.get("/hello").status == 200


def test_slow_but_steady_readers_are_not_ended(boot):
    """Progress, however slow, is progress: six windows, together far beyond the timeout."""
    server = boot("wsgi", threads=2, timeout=2, keepalive=30)
    with H2Client.connect(server, auto_window=False, settings={4: 10_000}) as client:
        client.grant(1_000_000)
        stream = client.request("GET", "/bytes?n=60000")
        while not stream.done:
            before = stream.received
            client.wait_for(lambda before=before: stream.received > before or stream.done, "progress")
            wait_quietly(client, 0.7)
            if not stream.done:
                client.grant(10_000, stream)
        assert (stream.received, stream.reset) == (60_000, None)


def wait_quietly(client, seconds):
    """Let the server wait: read nothing for a while. The time itself is what the test is about."""
    threading.Event().wait(seconds)
    client.receive_pending()


def test_a_worker_is_not_killed_for_slow_requests(boot, gate):
    """`timeout` is for workers that hang; a request of any length in a thread is not one."""
    server = boot("wsgi", threads=2, timeout=2)
    pid = server.worker_pid
    with H2Client.connect(server) as client, H2Client.connect(server, auto_window=False) as clock:
        slow = client.request("GET", gate.path("/gate"))
        gate.wait_inside()
        for _ in range(2):
            clock.response(clock.request("GET", "/bytes?n=10000000"))
            clock.grant(65_535)
        gate.release()
        assert client.response(slow).status == 200
    assert server.worker_pids == [pid]


def test_worker_connections(boot):
    """With all places taken a connection waits in the queue, and is served as soon as there is one."""
    server = boot("wsgi", threads=2, worker_connections=4, keepalive=30)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(H2Client.connect(server)) for _ in range(4)]
        for client in clients:
            client.get("/hello")
        waiting = stack.enter_context(open_plain(server))
        clients[0].ping()
        clients.pop().close()
        context = server.certs.client_context()
        with context.wrap_socket(waiting, server_hostname="localhost") as sock:
            late = H2Client(sock, server.authority)
            late.send_preface()
            assert late.get("/hello").status == 200


def test_running_out_of_descriptors(boot, worker):
    """Connections beyond the limit are turned away; the worker stays, and so do those it has."""
    if not worker.has_threads:
        pytest.skip("gevent has a way of its own")
    server = boot("wsgi", threads=2, keepalive=30, code=textwrap.dedent("""
        import os, resource
        def post_worker_init(worker):
            limit = len(os.listdir("/proc/self/fd")) + 12
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    """))
    pid = server.worker_pid
    with H2Client.connect(server) as first, contextlib.ExitStack() as stack:
        assert first.get("/hello").status == 200
        for _ in range(30):
            stack.enter_context(open_plain(server))
        server.wait_log("No file descriptor left")
        assert first.get("/hello").status == 200
        stack.close()
        # By then the worker has seen the ends of the others, too.
        assert first.get("/hello").status == 200
        with H2Client.connect(server) as late:
            assert late.get("/hello").status == 200
    assert server.worker_pid == pid


def test_errors_of_accept_that_waiting_would_not_mend(boot, worker):
    """The client is gone, or a firewall has refused it: the worker stays."""
    if not worker.has_threads:
        pytest.skip("the sockets of the other workers are not Gunicorn's own")
    server = boot("wsgi", threads=2, code=textwrap.dedent("""
        import errno
        ERRORS = [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.EINTR]
        def post_worker_init(worker):
            listener, = worker.sockets
            accept = listener.accept
            def fail_at_first():
                if ERRORS:
                    raise OSError(ERRORS.pop(), "deliberate")
                return accept()
            listener.accept = fail_at_first
    """))
    pid = server.worker_pid
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200
    assert server.worker_pid == pid


# -- what operators see ------------------------------------------------------------------------------------------------

@compat
def test_access_log(boot):
    """Gunicorn's atoms, the protocol and the stream."""
    server = boot("wsgi", threads=2, access_log_format=(
        "LOG %(h)s|%(r)s|%(s)s|%(b)s|%(B)s|%(m)s|%(U)s|%(q)s|%(H)s|%(f)s|%(a)s|%({x-in}i)s|%({content-type}o)s|"
        "%({gunicorn.http2.stream_id}e)s|%({server_protocol}e)s|%(L)s"))
    with H2Client.connect(server) as client:
        client.get("/hello?q=1", [("user-agent", "agent"), ("referer", "there"), ("x-in", "in")])
        client.response(client.request("HEAD", "/bytes?n=1000&length=1"))
        client.get("/no/such/route")
    first = server.wait_log(r"LOG 127.0.0.1\|GET /hello\?q=1 HTTP/2.0\|200\|14\|14\|GET\|/hello\|q=1\|HTTP/2.0\|there\|"
                            r"agent\|in\|text/plain\|1\|HTTP/2.0\|0\.\d+")
    assert first
    server.wait_log(r"LOG 127.0.0.1\|HEAD /bytes\?n=1000&length=1 HTTP/2.0\|200\|(0|1000)\|.*\|3\|HTTP/2.0")
    server.wait_log(r"LOG 127.0.0.1\|GET /no/such/route HTTP/2.0\|404\|.*\|5\|HTTP/2.0")


def test_broken_off_responses_are_in_the_access_log(boot, key):
    server = boot("wsgi", threads=2)
    server.expect("DeliberateError: secret")
    with H2Client.connect(server, auto_window=False) as client:
        client.grant(1_000_000)
        stream = client.request("GET", "/bytes?n=1000000&id=aborted")
        client.wait_for(lambda: stream.received == 65_535, "a window full of data")
        client.reset(stream)
        client.get("/fail-early?id=early")
        client.get(f"/fail-late?key={key}&id=late")
    server.wait_log("ACCESS .*id=aborted HTTP/2.0 200")
    server.wait_log("ACCESS .*id=early HTTP/2.0 500")
    server.wait_log("ACCESS .*id=late HTTP/2.0 200")


HOOKS = """
def post_worker_init(worker):
    worker.log.info("HOOK post_worker_init %s", worker.cfg.threads)

def pre_request(worker, req):
    worker.log.info("HOOK pre_request %s %s %s %s", req.method, req.path, req.version, sorted(req.headers)[:1])

def post_request(worker, req, environ, resp):
    worker.log.info("HOOK post_request %s %s %s", req.path, environ["PATH_INFO"], resp.status)

def worker_exit(server, worker):
    worker.log.info("HOOK worker_exit")
"""


@compat
def test_hooks(boot):
    server = boot("wsgi", threads=3, code=HOOKS)
    server.expect("DeliberateError: secret")
    server.wait_log("HOOK post_worker_init 3")
    with H2Client.connect(server) as client:
        client.get("/hello", [("accept", "text/plain")])
        server.wait_log(r"HOOK pre_request GET /hello \(2, 0\) \[\('ACCEPT', 'text/plain'\)\]")
        server.wait_log("HOOK post_request /hello /hello 200 OK")
        client.get("/fail-early")
        server.wait_log("HOOK post_request /fail-early /fail-early")
    server.signal(signal.SIGTERM)
    server.wait_exit()
    assert "HOOK worker_exit" in server.log


FAILING_HOOKS = """
def pre_request(worker, req):
    if "pre" in req.path:
        raise RuntimeError("deliberate failure of a hook")

def post_request(worker, req, environ, resp):
    raise RuntimeError("deliberate failure of a hook")
"""


def test_hooks_that_fail(boot):
    """pre_request decides: 500. post_request comes too late to matter. The connection goes on."""
    server = boot("wsgi", threads=2, code=FAILING_HOOKS)
    server.expect("deliberate failure of a hook")
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200
        response = client.get("/pre")
        assert response.status == 500
        assert b"deliberate" not in response.body
        assert client.get("/hello").status == 200


def test_statsd(boot):
    """Counters and durations arrive for HTTP/2 requests as for others."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        server = boot("wsgi", threads=2, statsd_host=f"127.0.0.1:{sock.getsockname()[1]}", statsd_prefix="test")
        with H2Client.connect(server) as client:
            client.get("/hello")
            client.get("/no/such/route")
        wanted = {"test.gunicorn.requests:1|c", "test.gunicorn.request.status.200:1|c",
                  "test.gunicorn.request.status.404:1|c", "test.gunicorn.request.duration"}
        while wanted:
            message = sock.recv(4096).decode()
            wanted = {want for want in wanted if not message.startswith(want)}
        # Its last report has somewhere to go.
        server.stop()


def test_the_start_is_logged(boot, worker):
    """One line says what was chosen."""
    server = boot("wsgi", threads=5, http2_max_concurrent_streams=77)
    line = server.wait_log(r"gunicorn_h2: .*")[0]
    assert "h2, http/1.1" in line
    assert "77 streams" in line
    assert ("5 threads" if worker.has_threads else "1000 connections") in line


def test_no_http2_at_all_is_warned_of(boot):
    """Neither TLS nor cleartext HTTP/2: the worker serves HTTP/1.1 and says that it will never be more."""
    server = boot("wsgi", tls=False, threads=2, http2_cleartext="off")
    server.wait_log(r"\[WARNING\].*HTTP/2")
    assert curl(server, "/hello", "--http1.1").stdout == "Hello, world!\n"


@pytest.mark.parametrize("settings", [
    {"http2_max_concurrent_streams": 0}, {"http2_max_frame_size": 100}, {"http2_initial_window_size": 2**31},
    {"http2_reset_bugdet": 5}, {"http2_header_timeout": "soon"}, {"http2_connection_window_size": 1000},
], ids=lambda settings: next(iter(settings)))
def test_wrong_settings_stop_the_start(boot, settings):
    server = boot("wsgi", start=False, **settings).launch()
    server.expect("Traceback")
    assert server.wait_exit() != 0
    server.wait_log(next(iter(settings)))


def test_a_misspelt_setting_gets_a_suggestion(boot):
    server = boot("wsgi", start=False, http2_max_concurent_streams=5).launch()
    server.wait_exit()
    assert "http2_max_concurrent_streams" in server.log.replace("\n", " ")


def test_settings_reach_the_wire(boot):
    """The first SETTINGS frame carries them, and there is only one; the connection's window is its own."""
    server = boot("wsgi", threads=2, http2_max_concurrent_streams=11, http2_initial_window_size=70_000,
                  http2_max_frame_size=20_000, http2_max_header_list_size=9_000, http2_connection_window_size=500_000)
    with H2Client.connect(server) as client:
        settings = client.wait_settings()
        client.get("/hello")
        assert (settings[3], settings[4], settings[5], settings[6]) == (11, 70_000, 20_000, 9_000)
        assert client.settings_frames == 1
        assert client.send_window == 500_000


# -- addresses ---------------------------------------------------------------------------------------------------------

@compat
def test_unix_socket(boot):
    """Prior knowledge over a Unix socket, and HTTP/1.1 on the same."""
    server = boot("wsgi", tls=False, unix=True, threads=2)
    assert curl(server, "/hello", "--http2-prior-knowledge").stdout == "Hello, world!\n"
    assert curl(server, "/hello", "--http1.1").stdout == "Hello, world!\n"
    with H2Client.connect(server) as client:
        assert client.post("/count", b"x" * 300_000).text == '{"length": 300000}'


def test_tls_over_a_unix_socket(boot):
    server = boot("wsgi", unix=True, threads=2)
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200


def test_two_addresses(boot, tmp_path):
    server = boot("wsgi", tls=False, threads=2, bind=["127.0.0.1:0", f"unix:{tmp_path}/two.sock"])
    with H2Client.connect(server) as client:
        assert client.get("/hello").status == 200
    done = curl(server, "/hello", "--http2-prior-knowledge", "--unix-socket", f"{tmp_path}/two.sock")
    assert done.stdout == "Hello, world!\n"


@compat
def test_prior_knowledge_only(boot):
    """Trusted peers must speak HTTP/2: a request of HTTP/1 is refused with 400, anything else by an error of HTTP/2."""
    server = boot("wsgi", tls=False, threads=2, http2_cleartext="prior-knowledge")
    assert curl(server, "/hello", "--http2-prior-knowledge").stdout == "Hello, world!\n"
    assert "HTTP/1.1 400" in curl(server, "/hello", "--http1.1", "--include").stdout
    with H2Client.connect(server, preface=False) as client:
        client.send_raw(b"nonsense\r\n\r\n")
        client.wait_closed()
        assert client.goaways == [(0, PROTOCOL_ERROR)]
    prove_all_free(server, 2)


@compat
def test_untrusted_peers_get_http1(boot):
    """Outside forwarded_allow_ips, cleartext HTTP/2 does not exist."""
    server = boot("wsgi", tls=False, threads=2, http2_cleartext="prior-knowledge", forwarded_allow_ips="192.0.2.1")
    assert curl(server, "/hello", "--http1.1").stdout == "Hello, world!\n"
    done = curl(server, "/hello", "--http2-prior-knowledge", check=False)
    assert done.returncode != 0
    with pytest.raises(httpx.HTTPError), http_client(server) as http:
        http.get("/hello")
