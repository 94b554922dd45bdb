"""The `gunicorn-h2` command, and plain `gunicorn` with our settings, as real processes."""

import os
import re
import ssl
import stat
import time
from pathlib import Path

import pytest
from gunicorn import __version__ as gunicorns_version

import gunicorn_h2
from gunicorn_h2.workers.settings import TABLE
from tests.support.command import CONF, Command, fetch

pytestmark = pytest.mark.compat

WORKER = "gunicorn_h2.ThreadWorker"


@pytest.fixture
def command(tmp_path_factory, certs):
    """A function that makes a command; what it started is stopped at the end, and its log examined."""
    commands = []

    def command(*arguments, conf="", **options):
        made = Command(tmp_path_factory.mktemp("command"), certs, *arguments, conf=CONF + conf, **options)
        commands.append(made)
        return made

    yield command
    for made in commands:
        if made.launched:
            made.stop()


@pytest.fixture
def gunicorn(command):
    """The same for Gunicorn's own command with our worker class."""

    def gunicorn(*arguments, **options):
        return command("-k", WORKER, *arguments, module="gunicorn", **options)

    return gunicorn


@pytest.fixture
def tls(certs):
    """The arguments that name the tests' certificate."""
    return ("--certfile", certs.server_cert, "--keyfile", certs.server_key)


def certificate_of(server):
    """Return where the log says that the development certificate's authority is."""
    return Path(server.wait_log(r"Clients can trust it by (\S+)")[1])


def left_over(server):
    """Return what remains in the command's directory for temporary files."""
    return sorted(server.directory.glob("gunicorn-h2-*"))


def wait_until(condition, timeout=15):
    """Wait for a condition that nothing announces."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.02)


# -- the development certificate -------------------------------------------------------------------------------------


def test_a_development_certificate_is_made_where_there_is_none(command):
    server = command().start()
    authority = certificate_of(server)
    assert server.tls
    assert fetch(server, ca=authority).status_code == 200
    assert "Do not use it in production" in server.log
    server.stop()
    assert not authority.parent.exists()


def test_the_development_certificate_is_private_and_marked(command):
    server = command().start()
    authority = certificate_of(server)
    pem = ssl.get_server_certificate(("localhost", server.port), ca_certs=authority)
    (server.directory / "seen.pem").write_text(pem)
    decoded = ssl._ssl._test_decode_cert(str(server.directory / "seen.pem"))
    assert (("organizationName", "gunicorn_h2 development certificate"),) in decoded["subject"]
    names = {(kind, name.replace("0:0:0:0:0:0:0:1", "::1")) for kind, name in decoded["subjectAltName"]}
    assert names == {("DNS", "localhost"), ("IP Address", "127.0.0.1"), ("IP Address", "::1")}
    assert stat.S_IMODE(authority.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in authority.parent.iterdir()} == {0o600}


def test_the_development_certificate_survives_a_reload(command):
    server = command().start()
    authority = certificate_of(server)
    mark = server.log_mark()
    server.hang_up()
    assert fetch(server, ca=authority).status_code == 200
    assert server.wait_log("Using a development certificate", after=mark)
    assert left_over(server) == [authority.parent]


def test_a_configured_certificate_is_used(command, tls):
    server = command(*tls).start()
    assert fetch(server).status_code == 200
    assert left_over(server) == []
    assert "development" not in server.log


def test_a_certificate_configured_later_replaces_the_one_for_development(command, certs):
    server = command().start()
    certificate_of(server)
    server.conf += f"certfile = {certs.server_cert!r}\nkeyfile = {certs.server_key!r}\n"
    server.write_conf()
    server.hang_up()
    assert fetch(server).status_code == 200


def test_cleartext_needs_no_certificate(command):
    server = command("--http2-cleartext", "prior-knowledge").start()
    assert fetch(server).status_code == 200
    assert not server.tls


def test_a_unix_socket_needs_no_certificate(command):
    server = command(conf="import os\nbind = 'unix:' + os.environ['TMPDIR'] + '/s'\nhttp2_cleartext = 'both'\n").start()
    assert fetch(server, uds=str(server.directory / "s")).status_code == 200
    assert left_over(server) == []


def test_a_daemon_removes_its_certificate(command):
    made = command("--daemon", conf="import os\npidfile = os.environ['TMPDIR'] + '/pid'\n"
                                    "errorlog = os.environ['TMPDIR'] + '/log'\n")
    pidfile, log = made.directory / "pid", made.directory / "log"
    assert made.run().returncode == 0
    wait_until(lambda: pidfile.exists() and pidfile.read_text().strip() and made.ready in log.read_text())
    directories = left_over(made)
    os.kill(int(pidfile.read_text()), 15)
    wait_until(lambda: not pidfile.exists() and not left_over(made))
    assert len(directories) == 1


def test_the_missing_library_is_named_with_the_alternatives(command):
    made = command()
    (made.directory / "trustme.py").write_text("raise ImportError('not installed')")
    done = made.run()
    assert done.returncode == 1
    for hint in ("gunicorn-h2[devcert]", "--certfile", "--keyfile", "--http2-cleartext prior-knowledge"):
        assert hint in done.stderr
    assert "Traceback" not in done.stderr
    assert left_over(made) == []


# -- the worker class ------------------------------------------------------------------------------------------------


def test_our_worker_is_the_default(command):
    assert command().start().wait_log(f"Using worker: {re.escape(WORKER)}")


def test_the_sync_worker_is_explained_and_serves_http1(command):
    server = command("-k", "sync", conf="threads = 1\n").start()
    server.wait_log("The sync worker cannot do HTTP/2")
    assert fetch(server, http2=False).status_code == 200
    assert (server.tls, left_over(server)) == (False, [])


def test_gunicorns_own_worker_is_explained(command):
    server = command(conf="worker_class = 'gthread'\n").start()
    server.wait_log("The gthread worker is Gunicorn's own")
    assert fetch(server, http2=False).status_code == 200


def test_the_worker_class_may_be_a_class(command, tls):
    server = command(*tls, conf="import gunicorn_h2\nworker_class = gunicorn_h2.ThreadWorker\n").start()
    assert fetch(server).status_code == 200


def test_a_worker_derived_from_ours_is_ours(command, tls):
    made = command("-k", "derived.Worker", *tls)
    (made.directory / "derived.py").write_text("import gunicorn_h2\nclass Worker(gunicorn_h2.ThreadWorker): pass\n")
    made.env["PYTHONPATH"] = str(made.directory)
    assert fetch(made.start()).status_code == 200


# -- flags -----------------------------------------------------------------------------------------------------------


def test_every_setting_is_a_flag(command):
    done = command("--help").run()
    assert done.returncode == 0
    assert [spec.flag for spec in TABLE if f"{spec.flag} {spec.kind.metavar}" not in done.stdout] == []
    assert f"[{WORKER}]" in done.stdout.replace("\n", " ")
    assert "usage: gunicorn-h2 " in done.stdout


def printed(done):
    """Return the settings that --print-config printed."""
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^(\w+) += (.*)$", done.stdout, re.MULTILINE))


def test_flags_and_environment_and_conf_file(command, tls):
    config = printed(command(
        "--print-config", *tls, "--http2-reset-budget", "0x10",
        conf="http2_reset_budget = 1\nhttp2_control_budget = 20\nhttp2_drain_timeout = 2\n",
        env={"GUNICORN_CMD_ARGS": "--http2-header-timeout 2.5 --http2-control-budget=30"}).run())
    assert config["http2_reset_budget"] == "16"
    assert config["http2_control_budget"] == "30"
    assert config["http2_header_timeout"] == "2.5"
    assert config["http2_drain_timeout"] == "2.0"
    assert config["http_protocols"] == "['h2', 'h1']"


@pytest.mark.parametrize(("conf", "protocols"), [
    ("http_protocols = ['h1', 'h2']", "['h1', 'h2']"),
    ("http_protocols = ('h1',)", "['h1']"),
    ("http_protocols = 'h1'", "['h1']"),
    ("", "['h2', 'h1']"),
])
def test_protocols_may_be_a_list(command, tls, conf, protocols):
    assert printed(command("--print-config", *tls, conf=conf).run())["http_protocols"] == protocols


def test_the_version_is_that_of_both(command):
    done = command("--version").run()
    assert done.returncode == 0
    assert done.stdout == f"gunicorn-h2 {gunicorn_h2.__version__} (gunicorn {gunicorns_version})\n"


def test_check_config(command):
    made = command("--check-config")
    assert made.run().returncode == 0
    assert left_over(made) == []


@pytest.mark.parametrize(("arguments", "conf", "message"), [
    (("--http2-reset-budget", "0"), "", "http2_reset_budget = '0': must be an integer from 1 to 1000000 (frames)"),
    (("--http2-header-timeout=soon",), "", "http2_header_timeout = 'soon': must be a number from 0 to 3600 (seconds)"),
    (("--http2-engine", "rust"), "", "http2_engine = 'rust': must be one of auto, h2, fast"),
    ((), "http2_control_budget = True", "http2_control_budget = True: must be an integer from 10 to 1000000 (frames)"),
    ((), "http2_max_framesize = 1", "did you mean http2_max_frame_size?"),
    ((), "http_protocols = ['h2', 'h2']", "Duplicate protocols"),
])
def test_wrong_values_stop_the_command(command, arguments, conf, message):
    done = command("--check-config", *arguments, conf=conf).run()
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


NO_APPLICATION = {
    "no-module": ("nosuch:app", "'nosuch:app' from {directory}: No module named 'nosuch'"),
    "no-submodule": ("package.nosuch:app", "'package.nosuch:app' from {directory}: No module named 'package.nosuch'"),
    "no-package": ("nosuch.app", "'nosuch.app' from {directory}: No module named 'nosuch'"),
    "file": ("package/good.py", "Failed to find application, did you mean 'package/good:application'?"),
    "no-attribute": ("package.good:nosuch", "'package.good:nosuch': Failed to find attribute 'nosuch'"),
    "no-expression": ("package.good:no such", "Failed to parse 'no such' as an attribute name or function call."),
    "not-callable": ("package.good:__name__", "'package.good:__name__': Application object must be callable."),
}


APPLICATIONS = {"__init__": "", "good": "def app(*_): pass", "broken": "import nosuch", "wrong": "1/0"}


@pytest.fixture
def package(command):
    """A function that makes a command run beside a package of applications, some of which are broken."""

    def package(app, *arguments):
        made = command(*arguments, app=app)
        (made.directory / "package").mkdir()
        for name, text in APPLICATIONS.items():
            (made.directory / "package" / f"{name}.py").write_text(text, encoding="utf-8")
        made.flags = (*arguments, "--chdir", str(made.directory))
        return made

    return package


@pytest.mark.parametrize(("app", "message"), NO_APPLICATION.values(), ids=NO_APPLICATION.keys())
def test_an_application_that_is_not_there_is_an_error_of_one_line(package, app, message):
    made = package(app, "--check-config")
    done = made.run()
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith(f"Error: cannot load the application {app!r}")
    assert message.format(directory=made.directory) in line


def test_a_worker_that_finds_no_application_says_so_in_one_line(package):
    done = package("nosuch:app").run()
    assert done.returncode == 4
    assert "\ncannot load the application 'nosuch:app' from " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("app", "error"), [
    ("package.broken:app", "ModuleNotFoundError: No module named 'nosuch'"),
    ("package.wrong:app", "ZeroDivisionError"),
])
def test_an_error_in_the_application_keeps_its_traceback(package, app, error):
    done = package(app, "--check-config").run()
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert f"{app.partition(':')[0].replace('.', '/')}.py" in done.stderr
    assert error in done.stderr


def test_the_keylog_is_warned_of(command, tls):
    made = command(*tls, conf="import os\nhttp2_keylog = os.environ['TMPDIR'] + '/keys.log'\n")
    server = made.start()
    assert fetch(server).status_code == 200
    keylog = server.directory / "keys.log"
    warnings = re.findall(rf"\[WARNING\] http2_keylog IS ON: .* written to {re.escape(str(keylog))}\.", server.log)
    assert len(warnings) == 2
    assert "TRAFFIC_SECRET_0 " in keylog.read_text()


@pytest.mark.parametrize("setting", ["http2_keylog", "http2_trace"])
def test_a_file_that_is_not_private_stops_the_start(command, tls, tmp_path, setting):
    path = tmp_path / "secrets.log"
    os.mkfifo(path, 0o600)
    done = command(*tls, conf=f"{setting} = {str(path)!r}\n").run()
    assert done.returncode == 3
    assert f"{setting}: is not a regular file: '{path}'" in done.stderr


# -- plain gunicorn --------------------------------------------------------------------------------------------------


def test_the_entry_point(command, tls):
    server = command("-k", "egg:gunicorn-h2#gthread", *tls, module="gunicorn").start()
    assert fetch(server).status_code == 200


@pytest.mark.parametrize(("conf", "message"), [
    ("http2_reset_budget = 0", "http2_reset_budget = 0: must be an integer from 1 to 1000000 (frames)"),
    ("http2_handshake_time = 1", "there is no such setting; did you mean http2_handshake_timeout?"),
])
def test_wrong_values_stop_gunicorn(gunicorn, conf, message):
    done = gunicorn(conf=conf).run()
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_start_up_says_what_was_chosen(gunicorn, tls):
    server = gunicorn(*tls, conf="http2_max_concurrent_streams = 50\n").start()
    server.wait_log("gunicorn_h2: ALPN h2, http/1.1; engine fast; 50 streams a connection; 4 threads")


def test_start_up_warns_when_http2_can_never_be(gunicorn):
    server = gunicorn().start()
    server.wait_log(r"\[WARNING\].* HTTP/2 can never be negotiated: there is no certificate")
    assert fetch(server, http2=False).status_code == 200


@pytest.mark.parametrize("module", ["file", "python"])
def test_our_settings_work_at_the_first_boot_and_after_a_reload(gunicorn, tls, module):
    conf = "http2_cleartext = 'prior-knowledge'\nhttp2_reset_budget = 7\n"
    made = gunicorn(*(("-c", "python:conf") if module == "python" else ()), conf=conf)
    made.env["PYTHONPATH"] = str(made.directory)
    server = made.start()
    assert fetch(server).status_code == 200
    server.hang_up()
    assert fetch(server).status_code == 200
