"""The routes of the acceptance suite in Django: ``wsgi()`` and ``asgi()`` make the two applications.

What waits for another request blocks a thread in the one, and waits in the event loop in the other.
"""

import asyncio
import hashlib
import json
import threading

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import (
    HttpResponse,
    HttpResponseNotModified,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.urls import path
from django.views.decorators.http import require_GET, require_http_methods, require_safe
from django.views.static import serve

from tests.apps import suite

settings.configure(
    SECRET_KEY=suite.SECRET,
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    APPEND_SLASH=False,
    USE_TZ=True,
    DEFAULT_CHARSET="utf-8",
    INSTALLED_APPS=["corsheaders"],
    MIDDLEWARE=[
        "django.middleware.gzip.GZipMiddleware",
        "corsheaders.middleware.CorsMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    CORS_ALLOWED_ORIGINS=[suite.ORIGIN],
    CORS_ALLOW_METHODS=["GET", "PUT"],
    CORS_ALLOW_HEADERS=["content-type"],
    CORS_PREFLIGHT_MAX_AGE=600,
    CORS_ALLOW_CREDENTIALS=True,
)


class Gates:
    """Events of threads by name, made on first use."""

    def __init__(self):
        self._lock, self._events = threading.Lock(), {}

    def get(self, *key):
        """Return the event of that name."""
        with self._lock:
            return self._events.setdefault(key, threading.Event())


gates, events = Gates(), suite.Events()


@require_safe
def index(request):
    """A greeting."""
    return HttpResponse("Hello, world!\n", content_type="text/plain; charset=utf-8")


def json_echo(request):
    """The JSON that was sent."""
    sent = json.loads(request.body) if request.body else None
    return JsonResponse({"method": request.method, "sent": sent, "query": dict(request.GET.lists()),
                         "text": suite.CZECH})


def items(request):
    """A list, open to one other origin."""
    return JsonResponse(suite.ITEMS, safe=False)


@require_http_methods(["PUT"])
def put_item(request, item):
    """Changes nothing."""
    return JsonResponse({"id": item, **json.loads(request.body)})


def form(request):
    """Form fields and the digests of uploaded files."""
    files = {name: hashlib.sha256(file.read()).hexdigest() for name, file in request.FILES.items()}
    return JsonResponse({"fields": request.POST.dict(), "files": files})


@require_GET
def text(request):
    """Enough text to be worth compressing."""
    return HttpResponse(suite.TEXT, content_type="text/plain")


def nothing(request):
    """204."""
    return HttpResponse(status=204)


def unchanged(request):
    """304 if the client has the right tag."""
    same = request.headers.get("If-None-Match") == '"v1"'
    response = HttpResponseNotModified() if same else HttpResponse("tagged\n", content_type="text/plain")
    response["ETag"] = '"v1"'
    return response


def moved(request):
    """302."""
    return HttpResponseRedirect("/json?from=redirect")


def large_headers(request):
    """Many and long response fields."""
    return JsonResponse({"received": len(request.headers.get("X-Large", ""))}, headers=suite.LARGE_HEADERS)


def not_found(request, exception):
    """404 as JSON."""
    return JsonResponse({"error": "not found", "path": request.path}, status=404)


def failed(request):
    """500 as JSON."""
    return JsonResponse({"error": "internal error"}, status=500)


def boom(request):
    """Fails."""
    raise RuntimeError("deliberate failure with a secret")


def upload(request):
    """Length and digest of the body, read piece by piece."""
    counted = suite.Counted()
    while piece := request.read(65_536):
        counted.add(piece)
    return JsonResponse(counted.result)


def download(request):
    """The pattern, as long as asked for."""
    size = int(request.GET["n"])
    body = (suite.pieces if isinstance(request, ASGIRequest) else suite.pattern)(size)
    return StreamingHttpResponse(body, content_type="application/octet-stream", headers={"Content-Length": size})


def stream(request):
    """Ten lines from a generator."""
    body = suite.text_lines() if isinstance(request, ASGIRequest) else iter(suite.lines())
    return StreamingHttpResponse(body, content_type="text/x-lines")


def server_sent_events(request):
    """Server-sent events."""
    key, count = request.GET["key"], int(request.GET.get("n", 3))

    def generate():
        for number in range(count):
            if number and not gates.get("next", key, number).wait(suite.WAIT):
                return
            yield suite.event(number)

    body = suite.server_sent(events, key, count) if isinstance(request, ASGIRequest) else generate()
    return StreamingHttpResponse(body, content_type="text/event-stream")


def endless(request):
    """A response without an end; that it was made to end is noted."""
    key = request.GET["key"]

    def generate():
        try:
            while True:
                yield suite.PATTERN
        finally:
            gates.get("ended", key).set()

    return StreamingHttpResponse(generate(), content_type="application/octet-stream")


class Endless(StreamingHttpResponse):
    """Notes that Django closes it, in a thread; an asynchronous generator is left to the garbage collector."""

    def __init__(self, key):
        super().__init__(suite.without_end(suite.Events(), key), content_type="application/octet-stream")
        self._loop, self._ended = asyncio.get_running_loop(), events.get("ended", key)

    def close(self):
        """Called by Django when it is done with the response, for whichever reason."""
        super().close()
        self._loop.call_soon_threadsafe(self._ended.set)


def next_event(request):
    """Let one event go."""
    gates.get("next", request.GET["key"], int(request.GET["number"])).set()
    return HttpResponse(status=204)


def has_ended(request):
    """204 once the endless response has ended."""
    return HttpResponse(status=204 if gates.get("ended", request.GET["key"]).wait(suite.WAIT) else 503)


async def endless_async(request):
    """A response without an end; that it was made to end is noted."""
    return Endless(request.GET["key"])


async def next_event_async(request):
    """Let one event go."""
    events.get("next", request.GET["key"], int(request.GET["number"])).set()
    return HttpResponse(status=204)


async def has_ended_async(request):
    """204 once the endless response has ended."""
    return HttpResponse(status=204 if await events.wait("ended", request.GET["key"]) else 503)


def login(request):
    """Begin a session."""
    request.session["name"] = request.POST["name"]
    return JsonResponse({"name": request.session["name"]})


def whoami(request):
    """Who the session belongs to."""
    return JsonResponse({"name": request.session.get("name")})


def logout(request):
    """End the session."""
    request.session.flush()
    return HttpResponse(status=204)


def cookies(request):
    """The cookies received, and two new ones."""
    response = JsonResponse(dict(sorted(request.COOKIES.items())))
    response.set_cookie("first", "1", httponly=True)
    response.set_cookie("second", "2", path="/cookies", samesite="Lax")
    return response


urlpatterns = [
    path("", index), path("json", json_echo), path("api/items", items), path("api/items/<int:item>", put_item),
    path("form", form), path("text", text), path("nothing", nothing), path("unchanged", unchanged),
    path("redirect", moved), path("large-headers", large_headers), path("boom", boom), path("upload", upload),
    path("download", download), path("stream", stream), path("events", server_sent_events),
    path("login", login), path("whoami", whoami), path("logout", logout), path("cookies", cookies),
    path("static/<path:path>", serve, {"document_root": "tests/apps/static"}),
]
handler404, handler500 = not_found, failed


def wsgi():
    """Make the WSGI application."""
    urlpatterns.extend([path("events/next", next_event), path("endless", endless), path("ended", has_ended)])
    return get_wsgi_application()


def asgi():
    """Make the ASGI application."""
    urlpatterns.extend([
        path("events/next", next_event_async), path("endless", endless_async), path("ended", has_ended_async)])
    return get_asgi_application()
