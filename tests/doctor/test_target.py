"""The doctor's arguments."""

import pytest

from gunicorn_h2.doctor.command import main
from gunicorn_h2.doctor.target import Target, TargetError, parse_address, parse_url


@pytest.mark.parametrize(("url", "target", "authority"), [
    ("https://example.org", Target("https", "example.org", 443, "/"), "example.org"),
    ("HTTP://Example.org:8080/a%20b?c=d#e", Target("http", "example.org", 8080, "/a%20b?c=d"), "example.org:8080"),
    ("https://[::1]:8443/", Target("https", "::1", 8443, "/"), "[::1]:8443"),
    ("http://bücher.example/ü?ü", Target("http", "xn--bcher-kva.example", 80, "/%C3%BC?%C3%BC"),
     "xn--bcher-kva.example"),
])
def test_urls(url, target, authority):
    assert parse_url(url) == target
    assert target.authority == authority


def test_the_url_of_the_other_scheme():
    assert parse_url("https://[::1]/x").other() == "http://[::1]:443/x"
    assert parse_url("http://a:8443").other() == "https://a:8443/"


@pytest.mark.parametrize("url", [
    "localhost:8443", "ftp://a/", "https://", "https://user@a/", "https://a:99999/", "https://a:x/", "https://a b/",
    "https://a/\r\nX: y", "https://a/\x00", "https://[::1", "https://" + "ä" * 100, "https://a/" + "x" * 5000,
])
def test_urls_that_cannot_be_used(url):
    with pytest.raises(TargetError):
        parse_url(url)


@pytest.mark.parametrize(("text", "address"), [
    ("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:443", ("::1", 443)), ("a.example:1", ("a.example", 1)),
])
def test_addresses(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "a", "a:", ":1", "::1:80", "a:0", "a:70000", "a:1x", "a:²"])
def test_addresses_that_cannot_be_used(text):
    with pytest.raises(TargetError):
        parse_address(text)


@pytest.mark.parametrize("arguments", [
    (), ("localhost",), ("https://a/", "--timeout", "0"), ("https://a/", "--timeout", "nan"),
    ("https://a/", "--connect-to", "a"), ("https://a/", "--cacert", "/nosuch.pem"),
    ("https://a/", "--cacert", __file__), ("https://a/", "--no-such"),
])
def test_wrong_arguments_have_a_status_of_their_own(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 4
    printed = capsys.readouterr()
    assert "gunicorn-h2 doctor: error: " in printed.err
    assert printed.out == ""


def test_the_help_documents_the_exit_status(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "exit status:\n  0  HTTP/2 works" in text
    assert "  4  wrong arguments" in text
