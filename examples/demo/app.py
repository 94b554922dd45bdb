"""What HTTP/2 by gunicorn_h2 does for a browser: a Flask application whose page measures it.

    gunicorn-h2

in this folder, where gunicorn.conf.py has the rest. It starts a second Gunicorn, which serves the tiles of `http1` by
HTTP/1.1 alone. Nothing in here is specific to a server, except for the names of environ that `describe` asks for.
"""

import hashlib
import json
import os
import secrets
import threading
import time
from collections import OrderedDict
from urllib.parse import urlsplit

from flask import Flask, Response, abort, jsonify, render_template, request, send_from_directory, url_for
from flask_sock import Sock
from picture import COLUMNS, TILES

THINKING = 0.15
"""Seconds that the page takes to make: what an early hint gives to the browser."""
PARTS = ("demo.css", "demo.js")
MAX_WAIT = 0.5
TICK = 0.5
TICKS = 1_200
"""Events of a stream; the browser then asks for another one."""
REMEMBERED = 100
"""Loads of the page, for which it can be asked when its parts were fetched."""
READ_SIZE = 65_536
MAX_UPLOAD = 2**30


class Tally:
    """Counts responses; threads share it."""

    def __init__(self):
        self._lock, self._count = threading.Lock(), 0

    def add(self, response):
        """Count a response, and return it."""
        with self._lock:
            self._count += 1
        return response

    @property
    def count(self):
        """How many there have been."""
        with self._lock:
            return self._count


class Loads:
    """What has happened in the latest loads of the page, in milliseconds since each was asked for."""

    def __init__(self):
        self._lock, self._loads = threading.Lock(), OrderedDict()

    def begin(self):
        """Return the name of a new load, which begins now."""
        name = secrets.token_hex(4)
        with self._lock:
            self._loads[name] = (time.perf_counter(), {})
            if len(self._loads) > REMEMBERED:
                self._loads.popitem(last=False)
        return name

    def note(self, name, event):
        """Note that something happens now."""
        with self._lock:
            if name in self._loads:
                began, events = self._loads[name]
                events.setdefault(event, []).append((time.perf_counter() - began) * 1_000)

    def get(self, name):
        """Return the times of each event."""
        with self._lock:
            return {event: list(times) for event, times in self._loads.get(name, (0, {}))[1].items()}


def describe(environ):
    """Say how a request has come, as the server sees it."""
    stream = environ.get("gunicorn.http2.stream_id")
    return {
        # A WebSocket's request looks like one of HTTP/1.1 on either protocol; only the stream tells.
        "protocol": "HTTP/2" if stream is not None else environ["SERVER_PROTOCOL"],
        "stream": stream,
        "port": int(environ["REMOTE_PORT"]),
        "tls": environ.get("SSL_PROTOCOL"),
        "cipher": environ.get("SSL_CIPHER"),
    }


def tile(run, number):
    """One tile of the picture, after a while; `run` keeps the browser from taking it from its cache."""
    if number >= len(TILES):
        abort(404)
    began = time.perf_counter()
    time.sleep(max(0.0, min(request.args.get("wait", 0, type=int) / 1_000, MAX_WAIT)))
    response = Response(TILES[number], mimetype="image/png")
    response.headers["Cache-Control"] = "no-store"
    # The page reads this beside its own timings: how long the application took, and which connection it was.
    response.headers["Server-Timing"] = (
        f"app;dur={(time.perf_counter() - began) * 1_000:.1f}, port;desc={request.environ['REMOTE_PORT']}")
    return response


# -- the side of HTTP/1.1 ----------------------------------------------------------------------------------------------

http1 = Flask("http1", static_folder=None)
http1.add_url_rule("/tiles/<run>/<int:number>.png", view_func=tile)


@http1.get("/")
def trusted():
    """What one sees after telling the browser to trust the certificate here, too."""
    return render_template("trusted.html")


@http1.after_request
def share(response):
    """Let the page, which has another origin, read the timings."""
    response.headers["Timing-Allow-Origin"] = "*"
    return response


# -- the page and its parts --------------------------------------------------------------------------------------------

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = MAX_UPLOAD
app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": READ_SIZE}
app.add_url_rule("/tiles/<run>/<int:number>.png", view_func=tile)
sock = Sock(app)
tally, loads = Tally(), Loads()
app.after_request(tally.add)


@app.get("/")
def page():
    """The page: the browser fetches its style sheet and its script while it is in the making."""
    load = loads.begin()
    # Under a new name for each load, or the browser would have them already.
    style, script = (url_for("part", load=load, name=name) for name in PARTS)
    hint = request.environ.get("wsgi.early_hints")
    if hint is not None:
        hint([("Link", f"<{style}>; rel=preload; as=style"), ("Link", f"<{script}>; rel=preload; as=script")])
        loads.note(load, "hint")
    time.sleep(THINKING)

    host = urlsplit(request.host_url).hostname
    other = f"https://{f'[{host}]' if ':' in host else host}:{os.environ.get('DEMO_HTTP1_PORT', '0')}"
    response = Response(render_template("index.html", load=load, style=style, script=script, other=other,
                                        columns=COLUMNS, tiles=len(TILES), thinking=round(THINKING * 1_000)))
    response.headers["Cache-Control"] = "no-store"
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'self'; script-src 'self'; base-uri 'none'; form-action 'none'; "
        f"img-src 'self' {other}; connect-src 'self' wss://{request.host}")
    loads.note(load, "page")
    return response


@app.get("/parts/<load>/<name>")
def part(load, name):
    """The style sheet or the script of a load."""
    if name not in PARTS:
        abort(404)
    loads.note(load, name)
    # A hint is of no use for what the browser may not keep until the page asks for it.
    return send_from_directory(app.static_folder, name, max_age=3_600)


@app.get("/loads/<load>")
def load_times(load):
    """When the hint and the page of a load were sent, and its parts were asked for."""
    return jsonify(loads.get(load))


@app.get("/connection")
def connection():
    """Says how it was reached."""
    return jsonify(describe(request.environ))


@app.get("/events")
def events():
    """A stream of events: how many requests have been answered."""
    about = describe(request.environ)

    def generate():
        for number in range(1, TICKS + 1):
            news = {**about, "number": number, "answered": tally.count}
            yield f"data: {json.dumps(news)}\n\n"
            time.sleep(TICK)

    return Response(generate(), mimetype="text/event-stream", headers={"Cache-Control": "no-store"})


@app.post("/upload")
def upload():
    """The size and the SHA-256 of the body; with `rate`, read no faster than so many octets a second."""
    rate, began = request.args.get("rate", 0, type=int), time.perf_counter()
    digest, size = hashlib.sha256(), 0
    while piece := request.stream.read(READ_SIZE):
        digest.update(piece)
        size += len(piece)
        if rate > 0:
            time.sleep(max(0.0, began + size / rate - time.perf_counter()))
    return jsonify({**describe(request.environ), "size": size, "sha256": digest.hexdigest()})


@sock.route("/socket")
def echo(ws):
    """Send back what comes, with how it came."""
    about = describe(request.environ)
    ws.send(json.dumps(about))
    while True:
        ws.send(json.dumps({**about, "echo": ws.receive()}))
