"""Settings: where they come from, what is refused and how, and what docs/settings.md says of them."""

import dataclasses
import os
import re
import sys
from pathlib import Path

import pytest
from gunicorn import config as gunicorn_config
from gunicorn.app.wsgiapp import WSGIApplication

from gunicorn_h2.protocol.config import ConnectionConfig
from gunicorn_h2.workers.asgi import ASGIWorker
from gunicorn_h2.workers.kinds import CleartextMode
from gunicorn_h2.workers.settings import (
    TABLE,
    Settings,
    SettingsError,
    load_settings,
    never_http2_reason,
    startup_line,
)

pytestmark = pytest.mark.compat

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
BY_NAME = {spec.name: spec for spec in TABLE}


class Application(WSGIApplication):
    """Gunicorn's command, started here: its own idea of that is where it was imported."""

    def load_default_config(self):
        super().load_default_config()
        self.cfg.set("chdir", os.getcwd())


@pytest.fixture(autouse=True)
def _clean_process(monkeypatch, tmp_path):
    """Give each test its own working directory, command line and conf module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    # Set before deleted, so that what Gunicorn puts there is taken away again.
    monkeypatch.setitem(sys.modules, "__config__", sys)
    del sys.modules["__config__"]


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Return a function that has Gunicorn read a conf file and a command line, and gives its `cfg`."""

    def read(conf=None, *arguments):
        if conf is not None:
            (tmp_path / "conf.py").write_text(conf)
            arguments = ("-c", "conf.py", *arguments)
        monkeypatch.setattr(sys, "argv", ["gunicorn", *arguments, "app:app"])
        return Application(prog="gunicorn").cfg

    return read


def own_settings(cfg):
    """Return the rows of the table that Gunicorn does not know, with a value other than the default."""
    others = {int: 12_345_678 // 100, float: 7.5}
    return {spec: others[type(spec.default)] for spec in TABLE
            if spec.name not in cfg.settings and type(spec.default) in others}


# -- defaults --------------------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_core(read):
    cfg = read()
    assert load_settings(cfg) == Settings()
    assert load_settings(cfg).connection == ConnectionConfig()


def test_the_table_knows_every_limit_of_the_core():
    derived = {"setup_timeout", "idle_timeout", "stream_timeout", "max_header_fields"}
    limits = {field.name for field in dataclasses.fields(ConnectionConfig)} - derived
    assert limits <= {spec.field for spec in TABLE}


@pytest.mark.parametrize("spec", TABLE, ids=lambda spec: spec.name)
def test_every_default_is_allowed(spec):
    assert spec.parse(spec.default) == spec.default


def test_settings_are_frozen(read):
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings(read()).cleartext = "both"


# -- where values come from ------------------------------------------------------------------------------------------


def test_gunicorns_own_settings_come_from_cfg(read, monkeypatch):
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--http2-max-frame-size 20000")
    connection = load_settings(read("http2_initial_window_size = 70000", "--http2-max-concurrent-streams=7")).connection
    assert connection.max_frame_size == 20_000
    assert connection.initial_window_size == 70_000
    assert connection.max_concurrent_streams == 7


def test_the_command_line_beats_the_conf_file(read):
    cfg = read("http2_max_concurrent_streams = 9", "--http2-max-concurrent-streams=7")
    assert load_settings(cfg).connection.max_concurrent_streams == 7


def test_times_come_from_keepalive_and_timeout(read):
    connection = load_settings(read("keepalive = 33\ntimeout = 0")).connection
    assert (connection.idle_timeout, connection.stream_timeout) == (33, 0)


def test_the_handshake_timeout_covers_the_preface_as_well(read):
    settings = load_settings(read("http2_handshake_timeout = 3"))
    assert settings.handshake_timeout == settings.connection.setup_timeout == 3


def assert_own_settings_are_read(cfg, values):
    settings = load_settings(cfg)
    for spec, value in values.items():
        holder = settings if hasattr(settings, spec.field) else settings.connection
        assert getattr(holder, spec.field) == value, spec.name


def conf_of(values):
    return "\n".join(f"{spec.name} = {value!r}" for spec, value in values.items())


def test_our_settings_come_from_a_conf_file(read):
    values = own_settings(read())
    assert len(values) >= 7
    assert_own_settings_are_read(read(conf_of(values)), values)


def test_our_settings_come_from_the_conf_file_that_gunicorn_finds_by_itself(read):
    values = own_settings(read())
    Path("gunicorn.conf.py").write_text(conf_of(values))
    assert_own_settings_are_read(read(), values)


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_our_settings_come_from_a_module(read, monkeypatch, by):
    values = own_settings(read())
    name = f"settings_module_by_{by}"
    Path(f"{name}.py").write_text(conf_of(values))
    if by == "environment":
        monkeypatch.setenv("GUNICORN_CMD_ARGS", f"-c python:{name}")
        cfg = read()
    else:
        cfg = read(None, "-c", f"python:{name}")
    assert_own_settings_are_read(cfg, values)


def test_a_module_does_not_inherit_from_an_earlier_file(read):
    read("http2_reset_budget = 5")
    Path("empty_settings_module.py").write_text("")
    assert load_settings(read(None, "-c", "python:empty_settings_module")).connection.reset_budget == 200


def test_a_reload_reads_the_file_again(read):
    cfg = read("http2_reset_budget = 5")
    assert load_settings(cfg).connection.reset_budget == 5
    application = Application(prog="gunicorn")
    Path("conf.py").write_text("http2_reset_budget = 60")
    application.reload()
    assert load_settings(application.cfg).connection.reset_budget == 60


def test_numbers_may_be_text_as_from_the_environment(read):
    connection = load_settings(read("http2_reset_budget = '0x20'\nhttp2_header_timeout = ' 2.5 '")).connection
    assert (connection.reset_budget, connection.header_timeout) == (32, 2.5)


def test_certificates_may_be_given_in_several_ways(read):
    for name in ("a.pem", "b.pem", "c.pem"):
        Path(name).touch()
    start = "certfile = keyfile = 'a.pem'\nhttp2_certificates = "
    pair, both = ("b.pem", "c.pem"), ("b.pem", None)
    for given, certificates in {
        "[('b.pem', 'c.pem')]": (pair,), "(['b.pem', 'c.pem'], 'b.pem')": (pair, both), "[('b.pem',)]": (both,),
        "'b.pem:c.pem'": (pair,), "' b.pem , b.pem:c.pem, '": (both, pair), "[]": (), "''": (), "None": (),
        "[('b.pem', None)]": (both,),
    }.items():
        assert load_settings(read(start + given)).certificates == certificates, given
    assert [str(pair) for pair in load_settings(read(f"{start}'b.pem:c.pem,b.pem'")).certificates] == [
        "b.pem:c.pem", "b.pem"]


def test_certificates_need_another_one(read):
    Path("b.pem").touch()
    with pytest.raises(SettingsError, match="http2_certificates needs certfile, the certificate for clients "):
        load_settings(read("http2_certificates = ['b.pem']"))


# -- what is refused -------------------------------------------------------------------------------------------------

NO_CERTIFICATES = "must be a list of (certificate, key): PEM files that exist, or one file with both"
WRONG_VALUES = [
    ("http2_connection_window_size", "65534", "must be an integer from 65535 to 2147483647 (octets)"),
    ("http2_connection_window_size", "2**31", "must be an integer from 65535 to 2147483647 (octets)"),
    ("http2_stream_buffer_size", "'many'", "must be an integer from 1024 to 2147483647 (octets)"),
    ("http2_stream_buffer_size", "65536.0", "must be an integer from 1024 to 2147483647 (octets)"),
    ("http2_reset_budget", "True", "must be an integer from 1 to 1000000 (frames)"),
    ("http2_reset_budget", "None", "must be an integer from 1 to 1000000 (frames)"),
    ("http2_control_budget", "[1000]", "must be an integer from 10 to 1000000 (frames)"),
    ("http2_control_budget", "'010'", "must be an integer from 10 to 1000000 (frames)"),
    ("http2_handshake_timeout", "-1", "must be a number from 0 to 3600 (seconds)"),
    ("http2_handshake_timeout", "float('nan')", "must be a number from 0 to 3600 (seconds)"),
    ("http2_header_timeout", "float('inf')", "must be a number from 0 to 3600 (seconds)"),
    ("http2_header_timeout", "False", "must be a number from 0 to 3600 (seconds)"),
    ("http2_header_timeout", "'soon'", "must be a number from 0 to 3600 (seconds)"),
    ("http2_drain_timeout", "0", "must be a number from 0.01 to 60 (seconds)"),
    ("http2_engine", "'rust'", "must be one of auto, h2, fast"),
    ("http2_engine", "2", "must be one of auto, h2, fast"),
    ("http2_websocket", "'yes'", "must be one of auto, on, off"),
    ("http2_websocket", "1", "must be one of auto, on, off"),
    ("http2_websocket_max_message_size", "0", "must be an integer from 1 to 2147483647 (octets)"),
    ("http2_certificate_reload", "-1", "must be a number from 0 to 86400 (seconds)"),
    ("http2_certificates", "['/no/such/file.pem']", NO_CERTIFICATES),
    ("http2_certificates", "'/no/such/file.pem:/no/such/key.pem'", NO_CERTIFICATES),
    ("http2_certificates", "[('/etc/passwd', '/no/such/key.pem')]", NO_CERTIFICATES),
    ("http2_certificates", "[('/etc/passwd', '/etc/passwd', '/etc/passwd')]", NO_CERTIFICATES),
    ("http2_certificates", "['/etc']", NO_CERTIFICATES),
    ("http2_certificates", "[7]", NO_CERTIFICATES),
    ("http2_certificates", "[(None, '/etc/passwd')]", NO_CERTIFICATES),
    ("http2_certificates", "[()]", NO_CERTIFICATES),
    ("http2_certificates", "{'/etc/passwd': '/etc/passwd'}", NO_CERTIFICATES),
    ("http2_keylog", "'keys.log'", "must be the absolute path of a file in a directory that exists, or None"),
    ("http2_keylog", "'/no/such/directory/keys.log'", "must be the absolute path of a file in a directory that exists, "
                                                      "or None"),
    ("http2_keylog", "'/tmp'", "must be the absolute path of a file in a directory that exists, or None"),
    ("http2_keylog", "'/tmp/\\0'", "must be the absolute path of a file in a directory that exists, or None"),
    ("http2_keylog", "True", "must be the absolute path of a file in a directory that exists, or None"),
    ("http2_trace", "'trace.log'", "must be the absolute path of a file in a directory that exists, or None"),
]


@pytest.mark.parametrize(("name", "code", "allowed"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_what_is_allowed(read, name, code, allowed):
    with pytest.raises(SettingsError) as caught:
        load_settings(read(f"{name} = {code}"))
    assert str(caught.value) == f"{name} = {eval(code)!r}: {allowed}"


@pytest.mark.parametrize(("name", "value"), [
    ("http2_max_concurrent_streams", 0),
    ("http2_initial_window_size", 2**31),
    ("http2_max_frame_size", 16_383),
    ("http2_max_header_list_size", 2**32),
])
def test_gunicorns_settings_are_held_to_the_rfc_on_every_gunicorn(read, name, value):
    # Some versions check these themselves, and end the process; the others leave it to us.
    with pytest.raises((SystemExit, SettingsError)):
        load_settings(read(f"{name} = {value}"))


@pytest.mark.parametrize("name", [name for name in BY_NAME if name.startswith("http2_")])
def test_a_function_is_no_value(read, name):
    with pytest.raises((SystemExit, SettingsError)):
        load_settings(read(f"def {name}(): pass"))


@pytest.mark.parametrize(("value", "engine"), [("auto", "fast"), ("fast", "fast"), ("h2", "h2"), (" H2 ", "h2")])
def test_the_engine_is_never_auto(read, value, engine):
    assert load_settings(read(f"http2_engine = {value!r}")).connection.engine == engine


@pytest.mark.parametrize(("value", "asked", "offered"), [
    ("auto", "auto", True), ("on", "on", True), (True, "on", True), ("Off", "off", False), (False, "off", False)])
def test_websocket(read, value, asked, offered):
    settings = load_settings(read(f"http2_websocket = {value!r}"))
    assert (settings.websocket, settings.connection.websocket) == (asked, offered)


class Lines:
    """A log."""

    def __init__(self):
        self.info_lines, self.warnings = [], []

    def info(self, text, *arguments):
        """Keep a line."""
        self.info_lines.append(text % arguments)

    def warning(self, text, *arguments):
        """Keep a warning."""
        self.warnings.append(text % arguments)


@pytest.mark.parametrize(("value", "has_library", "warns"), [
    ("auto", True, False), ("on", True, False), ("auto", False, False), ("off", False, False), ("on", False, True)])
def test_start_up_says_that_a_library_is_missing_where_websockets_were_asked_for(
        read, monkeypatch, value, has_library, warns):
    if not has_library:
        monkeypatch.setitem(sys.modules, "websockets", None)
    log = Lines()
    ASGIWorker.check_config(read(f"certfile = 'c'\nkeyfile = 'k'\nhttp2_websocket = {value!r}"), log)
    assert ["gunicorn-h2[websocket]" in line for line in log.warnings] == [True] * warns
    assert (ASGIWorker.websocket_obstacle() is None) == has_library


@pytest.mark.parametrize(("name", "hint"), [
    ("http2_max_framesize", "did you mean http2_max_frame_size?"),
    ("http2_max_streams", "did you mean http2_max_concurrent_streams?"),
    ("http2_handshake_time_out", "did you mean http2_handshake_timeout?"),
    ("http2_x", "the settings are http2_certificate_reload, http2_certificates, "),
])
def test_an_unknown_name_is_refused_with_a_hint(read, name, hint):
    with pytest.raises(SettingsError) as caught:
        load_settings(read(f"{name} = 12"))
    assert str(caught.value).startswith(f"{name} = 12: there is no such setting; {hint}")


def test_what_a_conf_file_imports_or_defines_is_no_setting(read):
    load_settings(read("import json as http2_json\nfrom os import getpid as http2_getpid\n"
                       "def http2_helper(): pass\nclass http2_Thing: pass\n_http2_private = 1\nHTTP2_MAX = 2"))


def test_the_error_stops_gunicorn_as_a_runtime_error_does(read):
    with pytest.raises(RuntimeError):
        load_settings(read("http2_reset_budget = 0"))


# -- http_protocols --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("conf", "arguments", "environment", "protocols"), [
    (None, (), "", ("h2", "http/1.1")),
    ("http_protocols = ''", (), "", ("h2", "http/1.1")),
    ("http_protocols = 'h1'", (), "", ("http/1.1",)),
    ("http_protocols = 'h2'", (), "", ("h2",)),
    ("http_protocols = 'H1, h2'", (), "", ("http/1.1", "h2")),
    (None, ("--http-protocols", "h1"), "", ("http/1.1",)),
    (None, ("--http-protocols=h1",), "", ("http/1.1",)),
    (None, ("--http-proto=h1",), "", ("http/1.1",)),
    (None, (), "--http-protocols h1", ("http/1.1",)),
    (None, (), "--http-protocols=h2,h1", ("h2", "http/1.1")),
    ("http_protocols = 'h2'", ("--http-protocols=h1",), "", ("http/1.1",)),
    (None, ("--http2-max-frame-size", "16384"), "", ("h2", "http/1.1")),
])
def test_http_protocols(read, monkeypatch, conf, arguments, environment, protocols):
    monkeypatch.setenv("GUNICORN_CMD_ARGS", environment)
    assert load_settings(read(conf, *arguments)).protocols == protocols


@pytest.mark.parametrize("value", [(), ("h2", "h2"), ("h3",), "h2,", 2, None, b"h2", ["h2", 1]])
def test_wrong_protocols_are_refused(value):
    with pytest.raises(SettingsError, match="must be a list of h1 and h2, each at most once, the preferred one first"):
        BY_NAME["http_protocols"].parse(value)


# -- http2_cleartext -------------------------------------------------------------------------------------------------

CLEARTEXT = {
    None: "off", True: "prior-knowledge", False: "off", "off": "off", "prior-knowledge": "prior-knowledge",
    "upgrade": "upgrade", "both": "both", " Both ": "both", "OFF": "off",
}


@pytest.mark.parametrize(("value", "mode"), CLEARTEXT.items())
def test_cleartext(value, mode):
    assert CleartextMode().parse(value) == mode
    if hasattr(gunicorn_config, "validate_http2_cleartext"):
        assert gunicorn_config.validate_http2_cleartext(value) == mode


@pytest.mark.parametrize("value", ["on", "", "true", 2, [], b"off"])
def test_wrong_cleartext_is_refused(value):
    with pytest.raises(SettingsError, match="must be one of off, prior-knowledge, upgrade, both"):
        BY_NAME["http2_cleartext"].parse(value)
    if hasattr(gunicorn_config, "validate_http2_cleartext"):
        with pytest.raises((TypeError, ValueError)):
            gunicorn_config.validate_http2_cleartext(value)


@pytest.mark.parametrize(("value", "mode"), [
    (None, "off"), (True, "prior-knowledge"), (False, "off"), (" Both ", "both"), ("upgrade", "upgrade"),
])
def test_cleartext_works_on_every_gunicorn(read, value, mode):
    assert load_settings(read(f"http2_cleartext = {value!r}")).cleartext == mode


# -- what start-up says ----------------------------------------------------------------------------------------------


def test_the_startup_line_with_tls(read):
    cfg = read("certfile = 'c.pem'\nkeyfile = 'k.pem'\nthreads = 4\nhttp2_max_concurrent_streams = 50")
    settings = load_settings(cfg)
    assert never_http2_reason(settings, cfg) is None
    assert startup_line(settings, cfg, "4 threads") == (
        "gunicorn_h2: ALPN h2, http/1.1; engine fast; 50 streams a connection; 4 threads")


def test_the_startup_line_without_tls(read):
    cfg = read("http2_cleartext = 'prior-knowledge'\nforwarded_allow_ips = '10.0.0.0/8'\nthreads = 4")
    line = startup_line(load_settings(cfg), cfg, "4 threads")
    assert "cleartext HTTP/2 (prior-knowledge) from 10.0.0.0/8; engine fast;" in line


def test_the_startup_line_names_unix_sockets(read):
    cfg = read("http2_cleartext = 'both'\nforwarded_allow_ips = ''\nbind = 'unix:g.sock'")
    settings = load_settings(cfg)
    assert never_http2_reason(settings, cfg) is None
    assert "cleartext HTTP/2 (both) from unix sockets;" in startup_line(settings, cfg, "4 threads")


@pytest.mark.parametrize(("conf", "reason"), [
    ("", "there is no certificate (certfile, keyfile) and http2_cleartext is off"),
    ("certfile = 'c.pem'\nhttp_protocols = 'h1'", "http_protocols does not name h2"),
    ("certfile = 'c.pem'\nprotocol = 'uwsgi'", "protocol is 'uwsgi', not 'http'"),
    ("http2_cleartext = 'both'\nforwarded_allow_ips = ''", "forwarded_allow_ips is empty"),
])
def test_start_up_says_when_http2_can_never_be(read, conf, reason):
    cfg = read(conf)
    settings = load_settings(cfg)
    text = never_http2_reason(settings, cfg)
    assert text.startswith("HTTP/2 can never be negotiated: ")
    assert reason in text
    assert "HTTP/1.1 only" in startup_line(settings, cfg, "4 threads")


# -- the reference ---------------------------------------------------------------------------------------------------


def render_reference():
    """Render the table as docs/settings.md shows it."""
    rows = [f"| `{spec.name}` | {_default(spec)} | {spec.allowed()} | {spec.doc} | {spec.others} |" for spec in TABLE]
    return "\n".join(["| setting | default | allowed | what it does | elsewhere |", "|---|---|---|---|---|", *rows])


def _default(spec):
    default = ",".join(spec.default) or "[]" if isinstance(spec.default, tuple) else spec.default
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_reference_shows_the_table():
    table = render_reference()
    assert table in REFERENCE.read_text(), f"the reference of docs/settings.md must be:\n\n{table}"


@pytest.mark.parametrize("spec", TABLE, ids=lambda spec: spec.name)
def test_every_setting_is_documented(spec):
    assert re.fullmatch(r"[A-Z].*\.", spec.doc)
    assert "|" not in spec.doc + spec.others + spec.allowed()
    assert spec.others
    assert spec.unit or not isinstance(spec.default, (int, float))
