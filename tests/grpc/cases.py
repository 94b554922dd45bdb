"""The interoperability cases of the gRPC project, with a service of our own, and some more.

Each `case_...` is called with a `Client` and the `Setup` of its server.
"""

import threading

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from tests.apps.grpc_app import ECHOED, ECHOED_BINARY, LIMIT, SECRET
from tests.grpc.interop import pb

TIMEOUT = 20
UPLOADED = (27_182, 8, 1_828, 45_904)
DOWNLOADED = (31_415, 9, 2_653, 58_979)


def error_of(call, code):
    """Make a call that must fail with a code; return its details."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is code, f"{caught.value.code()}: {caught.value.details()}"
    return caught.value.details()


# -- the four kinds ----------------------------------------------------------------------------------------------------


def case_empty_unary(client, setup):
    assert client.stub.Nothing(pb.Empty(), timeout=TIMEOUT) == pb.Empty()


def case_large_unary(client, setup):
    answer = client.stub.Unary(pb.Request(body=bytes(271_828), size=314_159), timeout=TIMEOUT)
    assert (answer.received, len(answer.body)) == (271_828, 314_159)


def case_client_streaming(client, setup):
    answer = client.stub.Upload((pb.Request(body=bytes(size)) for size in UPLOADED), timeout=TIMEOUT)
    assert answer.received == 74_922


def case_server_streaming(client, setup):
    answers = client.stub.Download(pb.Request(sizes=DOWNLOADED), timeout=TIMEOUT)
    assert [len(answer.body) for answer in answers] == list(DOWNLOADED)


def case_ping_pong(client, setup):
    """Each request waits for the response to the one before."""
    next_one = threading.Semaphore(1)

    def requests():
        for size, answer in zip(UPLOADED, DOWNLOADED, strict=True):
            assert next_one.acquire(timeout=TIMEOUT)
            yield pb.Request(body=bytes(size), size=answer)

    answers = []
    for answer in client.stub.PingPong(requests(), timeout=TIMEOUT):
        answers.append((answer.received, len(answer.body)))
        next_one.release()
    assert answers == list(zip(UPLOADED, DOWNLOADED, strict=True))


def case_empty_stream(client, setup):
    assert list(client.stub.PingPong(iter(()), timeout=TIMEOUT)) == []
    assert client.stub.Upload(iter(()), timeout=TIMEOUT).received == 0
    assert list(client.stub.Download(pb.Request(), timeout=TIMEOUT)) == []


def case_full_duplex(client, setup):
    """One thread of the servicer reads while another one sends, more than any window holds."""
    def requests():
        yield pb.Request(action="duplex", size=1)
        for _ in range(50):
            yield pb.Request(body=bytes(20_000))

    answers = list(client.stub.PingPong(requests(), timeout=TIMEOUT))
    assert [len(answer.body) for answer in answers] == [20_000] * 50 + [0, 1]
    assert answers[50].received == 1_000_000


def case_a_servicer_that_has_read_enough(client, setup):
    """It answers while the client still sends."""
    def requests():
        yield pb.Request(body=b"1234", action="enough")
        released.wait(TIMEOUT)

    released = threading.Event()
    assert client.stub.Upload(requests(), timeout=TIMEOUT).received == 4
    released.set()


# -- metadata ----------------------------------------------------------------------------------------------------------

METADATA = [(ECHOED, "test_initial_metadata_value"), (ECHOED_BINARY, b"\xab\xab\xab")]


def check_echoed(call):
    """The client's metadata came back."""
    assert (ECHOED, METADATA[0][1]) in call.initial_metadata()
    assert (ECHOED_BINARY, METADATA[1][1]) in call.trailing_metadata()


def case_custom_metadata(client, setup):
    _, call = client.stub.Unary.with_call(pb.Request(size=10), metadata=METADATA, timeout=TIMEOUT)
    check_echoed(call)
    stream = client.stub.PingPong(iter([pb.Request(size=10)]), metadata=METADATA, timeout=TIMEOUT)
    assert [len(answer.body) for answer in stream] == [10]
    check_echoed(stream)


def case_initial_metadata_comes_at_once(client, setup):
    """Before any response, and before the client has sent anything."""
    released = threading.Event()

    def requests():
        released.wait(TIMEOUT)
        yield pb.Request(size=1)

    call = client.stub.PingPong(requests(), metadata=METADATA, timeout=TIMEOUT)
    assert (ECHOED, METADATA[0][1]) in call.initial_metadata()
    released.set()
    assert len(list(call)) == 1


def case_many_metadata(client, setup):
    """Repeated keys, underscores, and octets that need padding in base64."""
    sent = [("x_under", "1"), ("x-two", "a"), ("x-two", "b, c"), ("x-one-bin", b"\0"), ("x-one-bin", b"\xff\xfe")]
    call = client.stub.Unary(pb.Request(action="describe"), metadata=sent, timeout=TIMEOUT)
    assert set(dict(sent)) <= set(eval(call.note)["metadata"])


def case_the_client_is_known(client, setup):
    note = eval(client.stub.Unary(pb.Request(action="describe"), timeout=TIMEOUT).note)
    assert note["peer"].startswith("ipv4:127.0.0.1:")
    assert note["auth"] == (["transport_security_type"] if setup.tls else [])
    assert TIMEOUT - 5 < note["remaining"] <= TIMEOUT + 0.1
    assert eval(client.stub.Unary(pb.Request(action="describe")).note)["remaining"] is None


# -- statuses ----------------------------------------------------------------------------------------------------------


def case_status_code_and_message(client, setup):
    request = pb.Request(code=2, details="test status message")
    details = error_of(lambda: client.stub.Unary(request, timeout=TIMEOUT), grpc.StatusCode.UNKNOWN)
    assert details == "test status message"
    call = client.stub.PingPong(iter([request]), timeout=TIMEOUT)
    assert error_of(lambda: list(call), grpc.StatusCode.UNKNOWN) == "test status message"


def case_every_status(client, setup):
    for code in grpc.StatusCode:
        if code is not grpc.StatusCode.OK:
            request = pb.Request(code=code.value[0], details=code.name)
            assert error_of(lambda request=request: client.stub.Unary(request, timeout=TIMEOUT), code) == code.name
            request.action = "set"
            assert error_of(lambda request=request: client.stub.Unary(request, timeout=TIMEOUT), code) == code.name


def case_special_status_message(client, setup):
    message = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n100 %"
    request = pb.Request(code=2, details=message)
    assert error_of(lambda: client.stub.Unary(request, timeout=TIMEOUT), grpc.StatusCode.UNKNOWN) == message


def case_a_status_after_responses(client, setup):
    call = client.stub.Download(pb.Request(sizes=[1, 2], code=9, details="enough"), timeout=TIMEOUT)
    assert [len(next(call).body), len(next(call).body)] == [1, 2]
    assert error_of(lambda: next(call), grpc.StatusCode.FAILED_PRECONDITION) == "enough"


def case_status_details(client, setup):
    try:
        client.stub.Unary(pb.Request(action="rich"), timeout=TIMEOUT)
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert (status.message, status.details[0].Unpack(info), info.reason) == ("not yet", True, "TESTED")


def case_an_exception_stays_on_the_server(client, setup):
    for call in (lambda: client.stub.Unary(pb.Request(action="raise"), timeout=TIMEOUT),
                 lambda: list(client.stub.Download(pb.Request(sizes=[1], action="raise"), timeout=TIMEOUT))):
        assert SECRET not in error_of(call, grpc.StatusCode.UNKNOWN)
        client.server.expect(r"RuntimeError: " + SECRET)


def case_what_is_no_message(client, setup):
    client.server.expect("cannot be a key of metadata", "doesn't apply to a 'NoneType' object")
    error_of(lambda: client.stub.Unary(pb.Request(action="none"), timeout=TIMEOUT), grpc.StatusCode.INTERNAL)
    error_of(lambda: client.stub.Unary(pb.Request(action="bad"), timeout=TIMEOUT), grpc.StatusCode.UNKNOWN)
    garbage = client.channel.unary_unary("/gunicorn_h2.tests.Interop/Unary")
    error_of(lambda: garbage(b"\xff\xff\xff", timeout=TIMEOUT), grpc.StatusCode.INTERNAL)


def case_unimplemented_method(client, setup):
    error_of(lambda: client.stub.Missing(pb.Empty(), timeout=TIMEOUT), grpc.StatusCode.UNIMPLEMENTED)
    unknown = client.channel.stream_stream("/gunicorn_h2.tests.Interop/Unheard")
    error_of(lambda: list(unknown(iter([b""]), timeout=TIMEOUT)), grpc.StatusCode.UNIMPLEMENTED)


def case_unimplemented_service(client, setup):
    error_of(lambda: client.absent.Nothing(pb.Empty(), timeout=TIMEOUT), grpc.StatusCode.UNIMPLEMENTED)


# -- limits and compression --------------------------------------------------------------------------------------------


def case_a_message_that_is_too_large(client, setup):
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    large = pb.Request(body=bytes(LIMIT))
    error_of(lambda: client.stub.Unary(large, timeout=TIMEOUT), exhausted)
    error_of(lambda: client.stub.Upload(iter([large]), timeout=TIMEOUT), exhausted)
    error_of(lambda: client.stub.Unary(large, timeout=TIMEOUT, compression=grpc.Compression.Gzip), exhausted)
    assert client.stub.Unary(pb.Request(body=bytes(LIMIT - 100)), timeout=TIMEOUT).received == LIMIT - 100


def case_client_compressed_unary(client, setup):
    for compression in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        answer = client.stub.Unary(pb.Request(body=bytes(271_828)), timeout=TIMEOUT, compression=compression)
        assert answer.received == 271_828


def case_client_compressed_streaming(client, setup):
    answer = client.stub.Upload((pb.Request(body=bytes(size)) for size in UPLOADED), timeout=TIMEOUT,
                                compression=grpc.Compression.Gzip)
    assert answer.received == 74_922


def case_server_compressed_unary(client, setup):
    for action in ("", "plain"):
        request = pb.Request(size=314_159, compress=True, action=action)
        assert len(client.stub.Unary(request, timeout=TIMEOUT).body) == 314_159


def case_server_compressed_streaming(client, setup):
    for action in ("", "plain"):
        answers = client.stub.Download(pb.Request(sizes=DOWNLOADED, compress=True, action=action), timeout=TIMEOUT)
        assert [len(answer.body) for answer in answers] == list(DOWNLOADED)


# -- deadlines and cancelling ------------------------------------------------------------------------------------------


def noted(client, name):
    """Wait until the servicer has noted something."""
    assert client.stub.Unary(pb.Request(action="noted", body=name.encode()), timeout=TIMEOUT).note == "True", name


def case_timeout_on_sleeping_server(client, setup):
    requests = iter([pb.Request(body=bytes(27_182), pause=0.2)])
    error_of(lambda: list(client.stub.PingPong(requests, timeout=0.001)), grpc.StatusCode.DEADLINE_EXCEEDED)
    request = pb.Request(pause=0.3)
    error_of(lambda: client.stub.Unary(request, timeout=0.05), grpc.StatusCode.DEADLINE_EXCEEDED)


def case_the_servicer_sees_the_deadline(client, setup):
    request = pb.Request(action="hang", body=b"deadline")
    error_of(lambda: client.stub.Unary(request, timeout=0.05), grpc.StatusCode.DEADLINE_EXCEEDED)
    noted(client, "ended deadline")
    noted(client, "callback deadline")


def case_cancel_after_begin(client, setup):
    released = threading.Event()

    def requests():
        released.wait(TIMEOUT)
        yield from ()

    call = client.stub.Upload.future(requests(), timeout=TIMEOUT)
    assert call.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED
    released.set()


def case_cancel_a_servicer_that_does_not_look(client, setup):
    call = client.stub.Unary.future(pb.Request(action="hang", body=b"cancel"), timeout=TIMEOUT)
    noted(client, "began cancel")
    assert call.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED
    noted(client, "ended cancel")
    noted(client, "callback cancel")


def case_cancel_after_first_response(client, setup):
    released = threading.Event()

    def requests():
        yield pb.Request(size=31_415, body=bytes(27_182))
        released.wait(TIMEOUT)

    call = client.stub.PingPong(requests(), timeout=TIMEOUT)
    assert len(next(call).body) == 31_415
    assert call.cancel()
    error_of(lambda: next(call), grpc.StatusCode.CANCELLED)
    released.set()


def case_cancel_an_endless_stream(client, setup):
    call = client.stub.Download(pb.Request(action="hang", body=b"endless", sizes=[1]), timeout=TIMEOUT)
    assert len(next(call).body) == 1
    call.cancel()
    noted(client, "ended endless")
    noted(client, "callback endless")


def case_the_servicer_cancels(client, setup):
    error_of(lambda: client.stub.Unary(pb.Request(action="cancel"), timeout=TIMEOUT), grpc.StatusCode.CANCELLED)


# -- services that come with grpcio ------------------------------------------------------------------------------------


def case_health(client, setup):
    stub = health_pb2_grpc.HealthStub(client.channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT).status == serving
    unknown = health_pb2.HealthCheckRequest(service="unknown")
    error_of(lambda: stub.Check(unknown, timeout=TIMEOUT), grpc.StatusCode.NOT_FOUND)
    watch = stub.Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT)
    assert next(watch).status == serving
    watch.cancel()


def case_reflection(client, setup):
    stub = reflection_pb2_grpc.ServerReflectionStub(client.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT)
    names = {service.name for service in answer.list_services_response.service}
    assert {"gunicorn_h2.tests.Interop", "grpc.health.v1.Health"} <= names
