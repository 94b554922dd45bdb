"""`gunicorn-h2 check`, as real processes: it reads a configuration, and neither binds nor loads anything."""

import re
import socket

import pytest

from gunicorn_h2.workers.settings import TABLE
from tests.support.command import CONF, Command

MISSING = "no.such.application:app"


class Check(Command):
    """The command `check`, of an application that does not exist."""

    @property
    def command(self):
        """The command line: `check` stands before the arguments."""
        python, _, module, *arguments = super().command
        return [python, "-m", module, "check", *filter(None, arguments)]


@pytest.fixture
def check(tmp_path_factory, certs):
    """A function that runs the command and returns it, finished, with the directory of its conf file."""

    def check(*arguments, conf="", app=MISSING, **options):
        made = Check(tmp_path_factory.mktemp("check"), certs, *arguments, conf=CONF + conf, app=app, **options)
        done = made.run()
        done.directory = made.directory
        return done

    return check


@pytest.fixture
def tls(certs):
    """The arguments that name the tests' certificate."""
    return ("--certfile", certs.server_cert, "--keyfile", certs.server_key)


def rows(done):
    """Return the printed tables: each setting's value and source."""
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^  (\w+) +(\S.*?)  +(\S.*)$", done.stdout, re.MULTILINE)
    return {name: (value, source) for name, value, source in found}


def test_every_setting_is_shown_with_its_source(check, tls):
    done = check(*tls, "--http2-reset-budget", "0x10", conf="http2_control_budget = 20\nhttp2_drain_timeout = 2\n",
                 env={"GUNICORN_CMD_ARGS": "--http2-header-timeout 2.5 --http2-control-budget=30 --keep-alive 7"})
    table = rows(done)
    assert [spec.name for spec in TABLE if spec.name not in table] == []
    assert table["http2_reset_budget"] == ("16 frames", "command line")
    assert table["http2_control_budget"] == ("30 frames", "GUNICORN_CMD_ARGS")
    assert table["http2_drain_timeout"] == ("2 seconds", f"conf file {done.directory}/conf.py")
    assert table["http2_max_frame_size"] == ("16384 octets", "default")
    assert table["http_protocols"] == ("h2, h1", "default")
    assert table["keepalive"] == ("7", "GUNICORN_CMD_ARGS; seconds after which an idle connection is closed")
    assert table["certfile"][1].startswith("command line")


def test_the_conf_module_and_variables_are_sources(check, tls):
    done = check(*tls, "-c", "python:conf", conf="http2_reset_budget = 5\nhttp_protocols = ''\n",
                 env={"WEB_CONCURRENCY": "3"})
    table = rows(done)
    assert table["http2_reset_budget"] == ("5 frames", "conf module conf")
    assert table["http_protocols"] == ("h2, h1", "default")
    assert table["workers"] == ("3", "environment variable WEB_CONCURRENCY; processes")


def test_nothing_is_loaded_or_bound(check, tls):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = check(*tls, "--bind", f"127.0.0.1:{taken.getsockname()[1]}")
    assert f"application   {MISSING}  (not loaded)" in done.stdout
    assert done.returncode == 0


def test_the_application_is_optional(check, tls):
    assert "application   none given" in check(*tls, app="").stdout


def test_the_development_certificate_is_announced_and_removed(check):
    done = check()
    assert rows(done)["certfile"][1] == "development certificate, made at each start; TLS"
    assert "https://127.0.0.1:0: HTTP/2 by TLS (ALPN h2, http/1.1)" in done.stdout
    assert list(done.directory.glob("gunicorn-h2-*")) == []


@pytest.mark.parametrize(("conf", "served"), [
    ("bind = '[::1]:0'\nhttp2_cleartext = 'prior-knowledge'",
     "http://[::1]:0: HTTP/2 without TLS, by prior knowledge, from 127.0.0.1, ::1, which get no HTTP/1.1; "
     "other peers get HTTP/1.1"),
    ("http2_cleartext = 'upgrade'\nforwarded_allow_ips = '*'",
     "http://127.0.0.1:0: HTTP/2 without TLS, by Upgrade: h2c, and HTTP/1.1, from every peer\n"),
    ("bind = 'unix:x.sock'\nhttp2_cleartext = 'both'",
     "unix:x.sock: HTTP/2 without TLS, by prior knowledge or Upgrade: h2c, and HTTP/1.1, from every peer\n"),
    ("bind = 'unix:x.sock'", "unix:x.sock: HTTP/1.1 only, without TLS"),
    ("http2_cleartext = 'both'\nforwarded_allow_ips = ''", "http://127.0.0.1:0: HTTP/1.1 only, without TLS"),
    ("http_protocols = 'h1'", "https://127.0.0.1:0: HTTP/1.1 only, by TLS (ALPN http/1.1)"),
])
def test_what_an_address_serves(check, conf, served):
    done = check(conf=conf + "\n")
    assert served in done.stdout
    assert done.returncode == 0


def test_a_configuration_without_http2_is_warned_of(check, tls):
    done = check(*tls, conf="http_protocols = 'h1'\n")
    assert "Warning: HTTP/2 can never be negotiated: http_protocols does not name h2" in done.stdout


def test_the_keylog_is_warned_of_and_not_made(check, tls):
    done = check(*tls, conf="import os\nhttp2_keylog = os.environ['TMPDIR'] + '/keys.log'\n")
    assert "Warning: http2_keylog IS ON" in done.stdout
    assert not (done.directory / "keys.log").exists()


def test_gunicorns_own_worker_class(check):
    done = check("-k", "gthread")
    assert done.returncode == 0
    assert "worker class  gunicorn.workers.gthread.ThreadWorker  (command line)" in done.stdout
    assert "not one of gunicorn_h2's" in done.stdout
    assert "http2_reset_budget" not in done.stdout


@pytest.mark.parametrize(("arguments", "conf", "message"), [
    (("--http2-reset-budget", "0"), "", "http2_reset_budget = '0': must be an integer from 1 to 1000000 (frames)"),
    ((), "http2_max_framesize = 1", "did you mean http2_max_frame_size?"),
    ((), "1/0", "ZeroDivisionError"),
    (("-k", "nosuch"), "", "class uri 'nosuch' invalid or not found"),
    (("--certfile", "/nosuch.pem"), "", "TLS cannot be set up with certfile = '/nosuch.pem'"),
])
def test_what_is_wrong_is_said_as_at_start(check, arguments, conf, message):
    done = check(*arguments, conf=conf)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""


def test_a_key_that_is_another_certificates_is_found(check, certs):
    done = check("--certfile", certs.ca, "--keyfile", certs.server_key)
    assert done.returncode == 1
    assert "KEY_VALUES_MISMATCH" in done.stderr


def test_unknown_arguments_are_refused(check):
    done = check("--http3")
    assert done.returncode == 2
    assert "unrecognized arguments: --http3" in done.stderr


def test_the_help_documents_the_exit_status(check):
    assert "Exit status: 0 if" in check("--help").stdout
