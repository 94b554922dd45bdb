"""An environ is its request's own, whatever is remembered of the requests before it, and whoever they came from."""

import threading

import pytest

from .wsgi_rig import PEER, PROXY, UNIX, keeping

pytestmark = pytest.mark.compat

# In HPACK's octets: entries 2, 6 and 4 of the static table.
GET = bytes([0x82, 0x86, 0x84])


@pytest.fixture
def serve(serve_either_way):
    """Whoever looks on, every test of this module holds."""
    return serve_either_way


def spoil(environ):
    """Change everything that can be changed."""
    for value in [*environ.values()]:
        if isinstance(value, (list, set)):
            value.append("spoilt")
    for key in [*environ]:
        environ[key] = "spoilt"
    environ["HTTP_COOKIE"] = environ["HTTP_X_NEW"] = environ["REMOTE_USER"] = "spoilt"
    del environ["PATH_INFO"], environ["HTTP_HOST"]


IDENTICAL = [(b"accept", b"*/*"), (b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"x-a", b"1"), (b"x-a", b"2")]


@pytest.mark.parametrize("connection", [{}, {"peer": PROXY}, UNIX], ids=["peer", "proxy", "unix"])
@pytest.mark.parametrize("fields", [[], IDENTICAL, [(b"x_y", b"1"), *IDENTICAL], [(b"script_name", b"/a")]],
                         ids=["none", "some", "dropped", "script-name"])
def test_what_an_application_changes_the_next_request_does_not_see(serve, connection, fields):
    """Many identical requests: the header block soon repeats octet by octet, and what was made of it may be kept."""
    environs = []

    def app(environ, start_response):
        environs.append({key: list(value) if isinstance(value, list) else value for key, value in environ.items()})
        spoil(environ)
        start_response("200 OK", [])
        return []

    rig = serve(app, **connection)
    for _ in range(50):
        assert rig.request(*fields, path=b"/a/b?c").status == 200
    assert [environ.pop("gunicorn.http2.stream_id") for environ in environs] == [*range(1, 100, 2)]
    for environ in environs:
        for key in ("wsgi.input", "wsgi.errors", "wsgi.early_hints", "gunicorn.http2.send_trailers",
                    "gunicorn.http2.stream"):
            environ[key] = type(environ[key])
    assert all(environ == environs[0] for environ in environs)
    assert "spoilt" not in str(environs[0])


def test_the_callables_and_the_input_are_a_requests_own(serve):
    environs = []
    rig = serve(keeping(environs))
    for _ in range(3):
        rig.request()
    for key in ("wsgi.input", "wsgi.early_hints", "gunicorn.http2.send_trailers", "gunicorn.http2.trailers",
                "gunicorn.http2.stream"):
        assert len({id(environ[key]) for environ in environs}) == 3, key


def test_requests_at_once_have_environs_of_their_own(serve):
    together = threading.Barrier(8, timeout=10)
    environs = {}

    def app(environ, start_response):
        environ["mine"] = environ["PATH_INFO"]
        together.wait()
        environs[environ["PATH_INFO"]] = dict(environ)
        start_response("200 OK", [])
        return [environ["mine"].encode()]

    rig = serve(app, threads=8)
    replies = [rig.start((b"x-number", b"%d" % number), path=b"/%d" % number) for number in range(8)]
    rig.client.wait_for(*replies)
    assert [reply.body for reply in replies] == [b"/%d" % number for number in range(8)]
    assert [environs[f"/{number}"]["HTTP_X_NUMBER"] for number in range(8)] == [str(number) for number in range(8)]


def test_the_same_octets_from_another_connection_are_another_request(serve):
    """Trust, addresses and schemes are the connection's: what was made of a header block for one is not another's."""
    environs = []
    rig = serve(keeping(environs), peer=PROXY)
    clients = [rig.client, rig.connect(peer=PEER, server=("192.0.2.9", 9)), rig.connect(**UNIX)]
    for _ in range(3):
        for client in clients:
            assert client.request((b"x-forwarded-proto", b"https"), (b"script_name", b"/a"), path=b"/a/b").status == 200
    seen = [(environ["REMOTE_ADDR"], environ.get("REMOTE_PORT"), environ["SERVER_NAME"], environ["SERVER_PORT"],
             environ["wsgi.url_scheme"], environ["SCRIPT_NAME"], environ["PATH_INFO"]) for environ in environs]
    assert seen == [
        ("127.0.0.1", "4321", "192.0.2.2", "8000", "https", "/a", "/b"),
        ("192.0.2.1", "1234", "192.0.2.9", "9", "http", "", "/a/b"),
        ("", None, "example.org", "443", "https", "/a", "/b"),
    ] * 3


def test_the_same_octets_need_not_be_the_same_request(serve):
    """An index of HPACK's dynamic table means what was put there last (RFC 7541 section 2.3.2)."""
    environs = []
    client = serve(keeping(environs)).client
    # Index 62 is the newest entry; 0x40 adds one with a new name.
    indexed = GET + bytes([0xBE])
    one, two = (GET + b"\x40\x03x-a\x01" + value for value in (b"1", b"2"))
    for block in (one, indexed, indexed, two, indexed, one, one, indexed):
        client.request_block(block)
    assert [environ["HTTP_X_A"] for environ in environs] == ["1", "1", "1", "2", "2", "1", "1", "1"]
    # A table of size 0 forgets everything (RFC 7541 section 4.2): the same octets are an error now.
    client.request_block(b"\x20" + GET)
    client.request_block(indexed)
    assert [code for _, code in client.goaways] == [9]
    assert len(environs) == 9


def test_environs_outlive_their_requests(capsys, serve):
    """A framework may keep one for a thread of its own."""
    environs = []

    def app(environ, start_response):
        environs.append(environ)
        start_response("200 OK", [])
        return []

    rig = serve(app)
    for number in range(3):
        rig.request((b"x-number", b"%d" % number))
    assert [environ["HTTP_X_NUMBER"] for environ in environs] == ["0", "1", "2"]
    environs[0]["wsgi.errors"].write("late\n")
    assert "late\n" in capsys.readouterr().err
    assert environs[0]["wsgi.input"].read() == b""
