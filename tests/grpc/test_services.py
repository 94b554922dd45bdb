"""The services as an application, called in memory: what no client of grpcio sends, and what interceptors do."""

import contextvars
import gzip
import ssl
import struct

import grpc
import pytest

from gunicorn_h2.grpc import GrpcASGI, GrpcWSGI
from gunicorn_h2.grpc.services import CallDetails
from tests.apps_unit.conftest import serve  # noqa: F401 - a fixture
from tests.protocol.peer import rst_stream

TYPE = (b"content-type", b"application/grpc")
CALL = (TYPE, (b"te", b"trailers"))
OK, UNIMPLEMENTED, INTERNAL, EXHAUSTED, UNKNOWN = b"0", b"12", b"13", b"8", b"2"


def message(octets, flag=0):
    """A message on the wire."""
    return struct.pack(">BL", flag, len(octets)) + octets


def echo(request, context):
    """Answer with the request."""
    return request


def twice(request, context):
    """Answer with the request, twice."""
    yield request
    yield request


def joined(requests, context):
    """Answer with all requests in one."""
    return b"".join(requests)


METHODS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Twice": grpc.unary_stream_rpc_method_handler(twice),
    "Joined": grpc.stream_unary_rpc_method_handler(joined),
    "Each": grpc.stream_stream_rpc_method_handler(lambda requests, context: requests),
}


def services(application=None, **options):
    """Services for METHODS, by both ways to register them."""
    services = GrpcWSGI(application, **options)
    services.add_registered_method_handlers("a.B", METHODS)
    services.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.Generic", METHODS)])
    return services


@pytest.fixture
def call(serve):  # noqa: F811
    """A function that makes a call with a body of octets; it returns the reply."""
    def call(body, *extra, method=b"/a.B/Echo", app=None, **options):
        rig = serve(app or services(**options))
        return rig.request(*CALL, *extra, method=b"POST", path=method, body=body)

    return call


def status_of(reply):
    """The status and the message of a call, which come in the trailers, or in the head of a response without a body."""
    assert reply.status == 200
    assert reply.field(b"content-type") == b"application/grpc"
    fields = dict(reply.trailers if reply.trailers is not None else reply.fields)
    return fields[b"grpc-status"], fields.get(b"grpc-message", b"")


# -- calls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", [b"a.B", b"a.Generic"])
def test_the_four_kinds(call, service):
    body = message(b"one") + message(b"two")
    for method, answer in ((b"Echo", message(b"one")), (b"Twice", message(b"one") * 2), (b"Joined", message(b"onetwo")),
                           (b"Each", body)):
        reply = call(body, method=b"/" + service + b"/" + method)
        assert (status_of(reply), reply.body) == ((OK, b""), answer)
        assert reply.trailers == [(b"grpc-status", b"0")]
        assert reply.field(b"grpc-accept-encoding") == b"identity, deflate, gzip"


def test_a_failed_call_is_a_head_and_nothing_else(call):
    reply = call(message(b""), method=b"/a.B/Unknown")
    assert (status_of(reply)[0], reply.body, reply.trailers) == (UNIMPLEMENTED, b"", None)


@pytest.mark.parametrize(("body", "method", "status"), [
    (b"", b"/a.B/Echo", UNIMPLEMENTED),
    (b"\0\0\0", b"/a.B/Echo", INTERNAL),
    (message(b"cut off")[:-1], b"/a.B/Echo", INTERNAL),
    (message(b"cut off")[:-1], b"/a.B/Joined", INTERNAL),
    (message(b"x", flag=2), b"/a.B/Echo", INTERNAL),
    (message(b"x", flag=1), b"/a.B/Echo", INTERNAL),
    (b"\0\xff\xff\xff\xff", b"/a.B/Echo", EXHAUSTED),
    (message(b"fine") + b"\0\xff\xff\xff\xff", b"/a.B/Joined", EXHAUSTED),
    (message(b"fine"), b"/", UNIMPLEMENTED),
    (message(b"fine"), b"/a.B", UNIMPLEMENTED),
    (message(b"fine"), b"//", UNIMPLEMENTED),
    (message(b"fine"), b"/a.B/Echo/", UNIMPLEMENTED),
])
def test_bodies_and_paths_that_are_refused(call, body, method, status):
    assert status_of(call(body, method=method))[0] == status


def test_a_large_length_is_refused_before_the_message_comes(serve):  # noqa: F811
    rig = serve(services())
    reply = rig.start(*CALL, method=b"POST", path=b"/a.B/Echo", body=b"\0\0\x40\0\x01", end=False)
    rig.client.wait_for(reply)
    assert status_of(reply) == (EXHAUSTED, b"received message larger than max (4194305 vs. 4194304)")


def test_messages_octet_by_octet(serve):  # noqa: F811
    rig = serve(services())
    reply = rig.start(*CALL, method=b"POST", path=b"/a.B/Each", end=False)
    body = message(b"") + message(b"one") + message(b"x" * 300)
    for octet in body:
        rig.client.send_data(reply, bytes([octet]))
    rig.client.send_data(reply, end=True)
    rig.client.wait_for(reply)
    assert (status_of(reply)[0], reply.body) == (OK, body)


@pytest.mark.parametrize(("field", "status"), [
    ((b"grpc-timeout", b"1x"), INTERNAL), ((b"a-bin", b"!"), INTERNAL), ((b"grpc-encoding", b"br"), UNIMPLEMENTED),
    ((b"grpc-timeout", b"0n"), b"4"), ((b"grpc-timeout", b"10S"), OK)])
def test_fields_that_decide_a_call(call, field, status):
    assert status_of(call(message(b"x"), field))[0] == status


@pytest.mark.parametrize(("accepted", "encoding"), [
    (b"gzip", b"gzip"), (b"identity,deflate, gzip", b"gzip"), (b"deflate", None), (b"xgzip", None), (b"", None)])
def test_responses_are_compressed_for_those_who_accept_it(call, accepted, encoding):
    reply = call(message(b"x" * 1000), (b"grpc-accept-encoding", accepted), compression=grpc.Compression.Gzip)
    assert reply.field(b"grpc-encoding") == encoding
    if encoding:
        assert reply.body[0] == 1
        assert gzip.decompress(reply.body[5:]) == b"x" * 1000
    else:
        assert reply.body == message(b"x" * 1000)


def test_a_compressed_request(call):
    compressed = message(gzip.compress(b"x" * 1000), flag=1)
    assert call(compressed, (b"grpc-encoding", b"gzip")).body == message(b"x" * 1000)
    limited = call(compressed, (b"grpc-encoding", b"gzip"), max_receive_message_length=999)
    assert status_of(limited)[0] == EXHAUSTED


def test_a_response_beyond_the_limit(call):
    assert status_of(call(message(b"x" * 11), max_send_message_length=10))[0] == EXHAUSTED


# -- what is no call ---------------------------------------------------------------------------------------------------


def page(environ, start_response):
    """Another application."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a page"]


@pytest.mark.parametrize(("content_type", "method", "status"), [
    (b"application/grpc", b"POST", 200), (b"application/grpc+proto", b"POST", 200),
    (b"Application/gRPC;a=b", b"POST", 200), (b"application/grpc-web", b"POST", 415),
    (b"application/grpc", b"GET", 405), (b"application/grpc", b"HEAD", 405)])
def test_requests_that_look_like_calls(serve, content_type, method, status):  # noqa: F811
    for application in (None, page):
        rig = serve(services(application))
        reply = rig.request((b"content-type", content_type), method=method, path=b"/a.B/Echo", body=message(b"x"))
        assert reply.status == status
        assert reply.field(b"allow") == (b"POST" if status == 405 else None)


def test_requests_that_do_not(serve):  # noqa: F811
    assert serve(services(page)).request().body == b"a page"
    assert serve(services()).request().status == 415


def test_a_server_without_trailers():
    """HTTP/1.1, or another server."""
    said = []
    environ = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/grpc", "PATH_INFO": "/a.B/Echo"}
    assert services()(environ, lambda status, headers: said.append(status)) == []
    assert said == ["505 HTTP Version Not Supported"]


# -- interceptors ------------------------------------------------------------------------------------------------------


class Interceptor(grpc.ServerInterceptor):
    """Notes its name and the method of a call."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def intercept_service(self, continuation, handler_call_details):
        """See `grpc.ServerInterceptor`."""
        self.notes.append((self.name, handler_call_details.method, dict(handler_call_details.invocation_metadata)))
        return continuation(handler_call_details)


class Denying(grpc.ServerInterceptor):
    """Lets no call through."""

    def intercept_service(self, continuation, handler_call_details):
        """See `grpc.ServerInterceptor`."""
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?"))


def test_interceptors_in_order(call):
    notes = []
    interceptors = [Interceptor("outer", notes), Interceptor("inner", notes)]
    assert status_of(call(message(b"x"), (b"x-a", b"1"), interceptors=interceptors))[0] == OK
    assert notes == [("outer", "/a.B/Echo", {"x-a": "1"}), ("inner", "/a.B/Echo", {"x-a": "1"})]


def test_an_interceptor_that_answers(call):
    reply = call(message(b"x"), interceptors=[Denying()])
    assert status_of(reply) == (b"16", b"who are you?")


def test_an_interceptor_that_fails(call, caplog):
    class Failing(grpc.ServerInterceptor):
        def intercept_service(self, continuation, handler_call_details):
            raise RuntimeError("secret")

    assert status_of(call(message(b"x"), interceptors=[Failing()])) == (UNKNOWN, b"Exception calling application")
    assert "secret" in caplog.text


def test_interceptors_of_one_kind():
    class Asynchronous:
        async def intercept_service(self, continuation, handler_call_details):
            return await continuation(handler_call_details)

    with pytest.raises(TypeError, match="interceptors"):
        GrpcASGI(interceptors=[Denying(), Asynchronous()])


def test_registered_methods_come_first():
    services = GrpcWSGI()
    services.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.B", METHODS)])
    details = CallDetails("/a.B/Echo", ())
    assert services.find(details) is METHODS["Echo"]
    other = grpc.unary_unary_rpc_method_handler(echo)
    services.add_registered_method_handlers("a.B", {"Echo": other})
    assert services.find(details) is other
    assert services.find(CallDetails("/a.B/Missing", ())) is None


# -- the end of a call -------------------------------------------------------------------------------------------------


def test_the_deadline_is_on_time_though_the_servicer_goes_on(serve):  # noqa: F811
    def hang(request, context):
        gate.enter()
        seen.append((context.is_active(), context.add_callback(print), context.time_remaining()))
        return request

    seen, app = [], GrpcWSGI()
    app.add_registered_method_handlers("a.B", {"Hang": grpc.unary_unary_rpc_method_handler(hang)})
    rig = serve(app)
    gate = rig.gate()
    reply = rig.start(*CALL, (b"grpc-timeout", b"20m"), method=b"POST", path=b"/a.B/Hang", body=message(b"x"))
    gate.wait_inside()
    rig.client.wait_for(reply)
    assert status_of(reply) == (b"4", b"Deadline Exceeded")
    gate.open()
    rig.wait_idle()
    assert seen == [(False, False, 0.0)]


def test_what_a_servicer_may_not_do_after_the_end(serve):  # noqa: F811
    def late(requests, context):
        context.send_initial_metadata([("x-a", "1")])
        with pytest.raises(ValueError, match="no longer allowed"):
            context.send_initial_metadata([("x-b", "1")])
        gate.enter()
        for attempt in (lambda: next(requests), lambda: context.send_initial_metadata([])):
            with pytest.raises(grpc.RpcError):
                attempt()
        rig.note("refused")
        yield b"too late"

    app = GrpcWSGI()
    app.add_registered_method_handlers("a.B", {"Late": grpc.stream_stream_rpc_method_handler(late)})
    rig = serve(app)
    gate = rig.gate()
    reply = rig.start(*CALL, method=b"POST", path=b"/a.B/Late", end=False)
    gate.wait_inside()
    rig.until(lambda: reply.head is not None, "the head")
    rig.client.send(rst_stream(reply.stream_id))
    rig.client.barrier()
    gate.open()
    rig.wait_notes(1)


def test_context_variables_do_not_leak_into_the_next_call(call):
    variable = contextvars.ContextVar("variable", default=b"unset")

    def remember(request, context):
        before = variable.get()
        variable.set(request)
        return before

    app = GrpcWSGI()
    app.add_registered_method_handlers("a.B", {"Echo": grpc.unary_unary_rpc_method_handler(remember)})
    for _ in range(8):
        assert call(message(b"x"), app=app).body == message(b"unset")


# -- who the client is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("presents", [True, False])
def test_the_certificate_of_the_client(serve, certs, presents):  # noqa: F811
    def who(request, context):
        seen.append((context.auth_context(), context.peer()))
        return request

    seen, app = [], GrpcWSGI()
    app.add_registered_method_handlers("a.B", {"Who": grpc.unary_unary_rpc_method_handler(who)})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certs.ca)
    context.load_cert_chain(certs.server_cert, certs.server_key)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["h2"])
    rig = serve(app, tls=(context, certs.client_context(client_cert=presents)), certfile=certs.server_cert,
                keyfile=certs.server_key)
    reply = rig.request(*CALL, method=b"POST", scheme=b"https", path=b"/a.B/Who", body=message(b"x"))
    assert status_of(reply)[0] == OK
    ((auth, peer),) = seen
    assert (auth["transport_security_type"], peer) == ([b"ssl"], "ipv4:192.0.2.1:1234")
    assert auth.get("x509_subject", [b""])[0].startswith(b"CN=alice,") is presents
    assert auth.get("x509_pem_cert", [b""])[0].startswith(b"-----BEGIN CERTIFICATE-----") is presents
