"""The WSGI applications of the shared tests behind ASGI, so that what tests say of the wire can be run on ASGIWorker.

Each request runs in a thread of its own. What is WSGI's own, environ and exceptions, is only as good as those tests
need it.
"""

import asyncio
import io
import sys
import threading
from urllib.parse import unquote_to_bytes
from wsgiref.util import FileWrapper

from gunicorn_h2 import StreamAborted
from tests.apps import flask_app, wsgi_app
from tests.apps import witness as witness_app


class Call(io.RawIOBase):
    """One request: the input of its environ, and where its response goes."""

    def __init__(self, scope, receive, send):
        super().__init__()
        self.loop, self.scope, self._receive, self._send = asyncio.get_running_loop(), scope, receive, send
        self._rest, self._more, self._started, self._head = b"", True, False, None
        self._trailers, self.request_trailers = None, []

    def wait_for(self, coroutine):
        """Have the event loop run something; return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def readable(self):
        """It is."""
        return True

    def readinto(self, buffer):
        """Read from the request's body."""
        while not self._rest and self._more:
            message = self.wait_for(self._receive())
            if message["type"] == "http.disconnect":
                raise StreamAborted(0, 8, "the client is gone")
            self._rest, self._more = message["body"], message["more_body"]
            self.request_trailers += [tuple(part.decode("latin-1") for part in field)
                                      for field in message.get("trailers", ())]
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size

    def environ(self):
        """The environ of PEP 3333."""
        scope = self.scope
        server, client = scope["server"] or ("", 0), scope["client"] or ("", 0)
        priority = scope.get("extensions", {}).get("http.response.priority", {})
        version = {"2": "2.0"}.get(scope["http_version"], scope["http_version"])
        environ = {
            "REQUEST_METHOD": scope["method"], "SCRIPT_NAME": "", "QUERY_STRING": scope["query_string"].decode(),
            "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"), "SERVER_PROTOCOL": f"HTTP/{version}",
            "RAW_URI": (scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")).decode(),
            "SERVER_NAME": server[0], "SERVER_PORT": str(server[1]),
            "REMOTE_ADDR": client[0], "REMOTE_PORT": str(client[1]),
            "wsgi.version": (1, 0), "wsgi.url_scheme": scope["scheme"], "wsgi.input": io.BufferedReader(self),
            "wsgi.errors": sys.stderr, "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper, "wsgi.early_hints": self.early_hints,
            "gunicorn.http2.trailers": self.request_trailers, "gunicorn.http2.send_trailers": self.trailers,
            **{f"gunicorn.http2.{name}": priority.get(name) for name in ("urgency", "incremental")},
            "gunicorn.http2.priority_weight": priority.get("weight"),
        }
        for name, value in scope["headers"]:
            key = name.decode().upper().replace("-", "_")
            key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
            text = value.decode("latin-1")
            environ[key] = f"{environ[key]},{text}" if key in environ else text
        return environ

    def early_hints(self, headers):
        """Send a 103."""
        self.wait_for(self._send({"type": "http.response.informational", "status": 103, "headers": headers}))

    def trailers(self, headers):
        """End the response with trailers."""
        self._head["trailers"] = True
        self._trailers = {"type": "http.response.trailers", "headers": headers}

    def start_response(self, status, headers, exc_info=None):
        """See PEP 3333."""
        if exc_info and self._started:
            raise exc_info[1]
        self._head = {"type": "http.response.start", "status": int(status[:3]), "headers": headers}
        return self.write

    def write(self, data, more=True):
        """Send a piece of the body, the head before it."""
        if not self._started:
            self._started = True
            self.wait_for(self._send(self._head))
        self.wait_for(self._send({"type": "http.response.body", "body": data, "more_body": more}))

    def run(self, app):
        """Run the application."""
        result = app(self.environ(), self.start_response)
        try:
            whole = isinstance(result, list) and len(result) == 1
            for data in result:
                if data:
                    self.write(data, not whole)
            if not whole:
                self.write(b"", False)
            if self._trailers:
                self.wait_for(self._send(self._trailers))
        finally:
            if hasattr(result, "close"):
                result.close()


def bridge(application):
    """Return an ASGI application that serves a WSGI one."""
    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await greet(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("only HTTP")
        call, over, errors = Call(scope, receive, send), asyncio.Event(), []

        def run():
            try:
                call.run(application)
            except BaseException as error:
                # Not in a future that this frame has: the frame is in the traceback, and would hold itself.
                errors.append(error)
            call.loop.call_soon_threadsafe(over.set)

        threading.Thread(target=run, daemon=True).start()
        await over.wait()
        if errors:
            raise errors.pop()

    return app


async def greet(receive, send):
    """What `tests.apps.wsgi_app.tunnel` does."""
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "hello"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


wsgi, flask = bridge(wsgi_app.app), bridge(flask_app.app)
witness, forward = bridge(witness_app.app), bridge(witness_app.forward)
