"""The services of tests/grpc, beside a small page, for WSGI and for ASGI.

Both servicers do the same.
"""

import asyncio
import inspect
import threading
import time

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from gunicorn_h2.grpc import GrpcASGI, GrpcWSGI
from tests.grpc.interop import pb, rpc

NAMES = ["gunicorn_h2.tests.Interop", "grpc.health.v1.Health"]
ECHOED, ECHOED_BINARY = "x-echo-initial", "x-echo-trailing-bin"
LIMIT = 1_000_000
CODES = {code.value[0]: code for code in grpc.StatusCode}
SECRET = "no client may read this"


class Records:
    """What became of the calls, for clients to ask for: names that were noted, in the order of time."""

    def __init__(self):
        self._notes, self._news = [], threading.Condition()

    def note(self, name):
        """Note something."""
        with self._news:
            self._notes.append(name)
            self._news.notify_all()

    def wait_for(self, name, timeout=20):
        """Wait until it has been noted; return whether it was in time."""
        with self._news:
            return self._news.wait_for(lambda: name in self._notes, timeout)

    def count(self, name):
        """How often something was noted."""
        return self._notes.count(name)


records = Records()


def metadata_of(context):
    """What the client sent, as a dict."""
    return dict(context.invocation_metadata())


def rich_status():
    """A status with details."""
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RetryInfo())
    detail.Pack(error_details_pb2.ErrorInfo(reason="TESTED", domain="example.org"))
    status = status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="not yet", details=[detail])
    return rpc_status.to_status(status)


def response(request, body=None):
    """The response to a request."""
    size = request.size if body is None else body
    return pb.Response(body=b"\0" * size, received=len(request.body))


def describe(context):
    """What a context says of its client."""
    auth = {key: [value.decode() for value in values] for key, values in context.auth_context().items()}
    remaining = context.time_remaining()
    return repr({"peer": context.peer(), "auth": sorted(auth), "remaining": remaining,
                 "metadata": sorted(metadata_of(context))})


def configure(request, context):
    """Set what does not need waiting."""
    if request.compress:
        context.set_compression(grpc.Compression.Gzip)
    if request.action == "plain":
        context.disable_next_message_compression()


class Actions(rpc.InteropServicer):
    """What both servicers do in the same way.

    `do_...` is what calls of `Unary` may do: the result is a note for the response, if it is anything, or is awaited.
    """

    def begin(self, context):
        """Send the client's metadata back."""
        sent = metadata_of(context)
        if ECHOED_BINARY in sent:
            context.set_trailing_metadata([(ECHOED_BINARY, sent[ECHOED_BINARY])])
        return context.send_initial_metadata([(ECHOED, sent[ECHOED])]) if ECHOED in sent else None

    def do_plain(self, request, context):
        """See `configure`."""

    def do_describe(self, request, context):
        """Say what is known."""
        return describe(context)

    def do_raise(self, request, context):
        """Fail as applications do."""
        raise RuntimeError(SECRET)

    def do_set(self, request, context):
        """Set a status without an exception."""
        context.set_code(CODES[request.code])
        context.set_details(request.details)
        return "unread"

    def do_rich(self, request, context):
        """End with a rich status."""
        return context.abort_with_status(rich_status())

    def do_bad(self, request, context):
        """Send metadata that cannot be sent."""
        context.set_trailing_metadata([("Bad Key", "x")])


class Interop(Actions):
    """The synchronous servicer."""

    def Nothing(self, request, context):
        """Nothing in, nothing out."""
        return pb.Empty()

    def Unary(self, request, context):
        """One response."""
        configure(request, context)
        self.begin(context)
        if request.action == "none":
            return None
        if request.action:
            note = getattr(self, "do_" + request.action)(request, context)
            if note:
                return pb.Response(note=note)
        if request.pause:
            time.sleep(request.pause)
        if request.code:
            context.abort(CODES[request.code], request.details)
        return response(request)

    def do_hang(self, request, context):
        """Go on until no one waits any more, and note that; the name is in the request."""
        name = request.body.decode()
        context.add_callback(lambda: records.note("callback " + name))
        records.note("began " + name)
        while context.is_active():
            time.sleep(0.005)
        records.note("ended " + name)

    def do_noted(self, request, context):
        """Wait until something has been noted, whether or not the client waits."""
        records.note("awaited " + request.body.decode())
        return str(records.wait_for(request.body.decode()))

    def do_cancel(self, request, context):
        """Cancel the own call."""
        context.cancel()

    def Download(self, request, context):
        """A stream of responses."""
        configure(request, context)
        self.begin(context)
        if request.action == "hang":
            context.add_callback(lambda: records.note("callback " + request.body.decode()))
        try:
            for size in request.sizes:
                yield response(request, size)
                if request.pause:
                    time.sleep(request.pause)
            if request.action == "raise":
                raise RuntimeError(SECRET)
            while request.action == "hang":
                yield response(request)
                if request.pause:
                    time.sleep(request.pause)
            if request.code:
                context.abort(CODES[request.code], request.details)
        finally:
            if request.action == "hang":
                records.note("ended " + request.body.decode())

    def Upload(self, request_iterator, context):
        """A stream of requests, whose octets are counted."""
        total = 0
        for request in request_iterator:
            total += len(request.body)
            if request.code:
                context.abort(CODES[request.code], request.details)
            if request.action == "enough":
                break
        return pb.Response(received=total)

    def PingPong(self, request_iterator, context):
        """Responses for each request; the requests are read by another thread if the first one asks for that."""
        self.begin(context)
        for request in request_iterator:
            configure(request, context)
            if request.pause:
                time.sleep(request.pause)
            if request.code:
                context.abort(CODES[request.code], request.details)
            if request.action == "duplex":
                yield from self.duplex(request_iterator)
            for size in request.sizes or [request.size]:
                yield response(request, size)

    def duplex(self, request_iterator):
        """Count the requests in a thread, and send 50 large responses meanwhile; then say how many came."""
        counted = []

        def count():
            counted.append(sum(len(request.body) for request in request_iterator))

        thread = threading.Thread(target=count)
        thread.start()
        for _ in range(50):
            yield pb.Response(body=bytes(20_000))
        thread.join()
        yield pb.Response(received=counted[0])


class AsyncInterop(Actions):
    """The asynchronous servicer."""

    async def begin(self, context):
        """See `Actions.begin`."""
        if sending := super().begin(context):
            await sending

    async def Nothing(self, request, context):
        """Nothing in, nothing out."""
        return pb.Empty()

    async def Unary(self, request, context):
        """One response."""
        configure(request, context)
        await self.begin(context)
        if request.action == "none":
            return None
        if request.action:
            note = getattr(self, "do_" + request.action)(request, context)
            if inspect.isawaitable(note):
                note = await note
            if note:
                return pb.Response(note=note)
        if request.pause:
            await asyncio.sleep(request.pause)
        if request.code:
            await context.abort(CODES[request.code], request.details)
        return response(request)

    async def do_hang(self, request, context):
        """Go on until no one waits any more, and note that; the name is in the request."""
        name = request.body.decode()
        context.add_done_callback(lambda context: records.note("callback " + name))
        records.note("began " + name)
        try:
            await asyncio.Event().wait()
        finally:
            records.note("ended " + name)

    async def do_noted(self, request, context):
        """Wait until something has been noted."""
        return str(await asyncio.to_thread(records.wait_for, request.body.decode()))

    async def do_cancel(self, request, context):
        """End the own call."""
        await context.abort(grpc.StatusCode.CANCELLED, "cancelled by the servicer")

    async def Download(self, request, context):
        """A stream of responses."""
        configure(request, context)
        await self.begin(context)
        if request.action == "hang":
            context.add_done_callback(lambda context: records.note("callback " + request.body.decode()))
        try:
            for size in request.sizes:
                yield response(request, size)
                if request.pause:
                    await asyncio.sleep(request.pause)
            if request.action == "raise":
                raise RuntimeError(SECRET)
            while request.action == "hang":
                yield response(request)
                if request.pause:
                    await asyncio.sleep(request.pause)
            if request.code:
                await context.abort(CODES[request.code], request.details)
        finally:
            if request.action == "hang":
                records.note("ended " + request.body.decode())

    async def Upload(self, request_iterator, context):
        """A stream of requests, whose octets are counted."""
        total = 0
        async for request in request_iterator:
            total += len(request.body)
            if request.code:
                await context.abort(CODES[request.code], request.details)
            if request.action == "enough":
                break
        return pb.Response(received=total)

    async def PingPong(self, request_iterator, context):
        """Responses for each request, by the context's own methods."""
        await self.begin(context)
        while (request := await context.read()) is not grpc.aio.EOF:
            configure(request, context)
            if request.pause:
                await asyncio.sleep(request.pause)
            if request.code:
                await context.abort(CODES[request.code], request.details)
            if request.action == "duplex":
                await self.duplex(request_iterator, context)
            for size in request.sizes or [request.size]:
                await context.write(response(request, size))

    async def duplex(self, request_iterator, context):
        """Count the requests in a task, and send 50 large responses meanwhile; then say how many came."""
        async def count():
            return sum([len(request.body) async for request in request_iterator])

        counting = asyncio.create_task(count())
        for _ in range(50):
            await context.write(pb.Response(body=bytes(20_000)))
        await context.write(pb.Response(received=await counting))


def register(services, servicer, health_servicer):
    """Register everything, as with a server of grpcio."""
    rpc.add_InteropServicer_to_server(servicer, services)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, services)
    reflection.enable_server_reflection([*NAMES, reflection.SERVICE_NAME], services)
    return services


def page(environ, start_response):
    """What is no call."""
    start_response("200 OK", [("content-type", "text/plain")])
    return [b"a page\n"]


async def async_page(scope, receive, send):
    """What is no call."""
    if scope["type"] == "lifespan":
        raise RuntimeError("there is no lifespan")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"a page\n"})


wsgi = register(GrpcWSGI(page, max_receive_message_length=LIMIT), Interop(), health.HealthServicer())
asgi = register(GrpcASGI(async_page, max_receive_message_length=LIMIT), AsyncInterop(), health.aio.HealthServicer())
asgi_threads = register(GrpcASGI(async_page, max_receive_message_length=LIMIT), Interop(), health.HealthServicer())
