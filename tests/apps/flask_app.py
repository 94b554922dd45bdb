"""An ordinary Flask application: nothing in it knows of HTTP/2 or of the server."""

import hashlib
import logging
import threading
import time

from flask import Flask, Response, jsonify, redirect, request, session, stream_with_context
from flask_compress import Compress
from flask_cors import CORS

PATTERN = bytes(range(256)) * 256
ITEMS = [{"id": 1, "name": "one"}, {"id": 2, "name": "zwei"}, {"id": 3, "name": "três"}]

app = Flask(__name__)
app.secret_key = "only for tests"
CORS(app, resources={r"/api/*": {"origins": ["https://example.org"], "max_age": 600}}, supports_credentials=True)
Compress(app)
logger = logging.getLogger("tests.flask_app")
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


class Meetings:
    """Barriers and events by name, for requests that wait for one another."""

    def __init__(self):
        self._lock, self._things = threading.Lock(), {}

    def get(self, key, make):
        """Return the thing of that name, made on first use."""
        with self._lock:
            return self._things.setdefault(key, make())


barriers, gates = Meetings(), Meetings()


def pattern(size):
    """Yield ``size`` bytes of a fixed pattern."""
    while size > 0:
        yield PATTERN[:size]
        size -= len(PATTERN)


# -- plain answers -----------------------------------------------------------------------------------------------------

@app.get("/")
def index():
    """A greeting, for HEAD too."""
    return "Hello, world!\n"


@app.get("/health")
def health():
    """What a load balancer asks."""
    return jsonify(status="ok")


@app.route("/json", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def json_echo():
    """The JSON that was sent, or some."""
    sent = request.get_json(silent=True)
    return jsonify(method=request.method, sent=sent, query=request.args.to_dict(flat=False), text="žluťoučký kůň")


@app.get("/api/items")
def items():
    """A list, open to one other origin."""
    return jsonify(ITEMS)


@app.put("/api/items/<int:item>")
def put_item(item):
    """Changes nothing; needs a CORS preflight."""
    return jsonify(id=item, **request.get_json())


@app.route("/form", methods=["POST"])
def form():
    """Form fields and the digests of uploaded files."""
    files = {name: hashlib.sha256(file.read()).hexdigest() for name, file in request.files.items()}
    return jsonify(fields=request.form.to_dict(), files=files)


@app.get("/text")
def text():
    """Enough text to be worth compressing."""
    return Response("All work and no play makes Jack a dull boy.\n" * 500, mimetype="text/plain")


@app.get("/nothing")
def nothing():
    """204."""
    return "", 204


@app.get("/unchanged")
def unchanged():
    """304 if the client has the right tag."""
    response = Response("tagged\n")
    response.set_etag("v1")
    return response.make_conditional(request)


@app.get("/redirect")
def moved():
    """302."""
    return redirect("/json?from=redirect")


@app.get("/large-headers")
def large_headers():
    """Many and long response fields; says how long the request's were."""
    response = jsonify(received=len(request.headers.get("X-Large", "")))
    for number in range(request.args.get("n", 20, type=int)):
        response.headers[f"X-Large-{number}"] = str(number) * 500
    return response


@app.get("/environ")
def environ():
    """The environ, as far as it is text."""
    return jsonify({key: value for key, value in request.environ.items() if isinstance(value, (str, int, bool))})


# -- errors ------------------------------------------------------------------------------------------------------------

@app.errorhandler(404)
def not_found(error):
    """404 as JSON."""
    return jsonify(error="not found", path=request.path), 404


@app.errorhandler(500)
def failed(error):
    """500 as JSON."""
    return jsonify(error="internal error"), 500


@app.get("/boom")
def boom():
    """Fails."""
    raise RuntimeError("deliberate failure with a secret")


# -- bodies ------------------------------------------------------------------------------------------------------------

@app.route("/upload", methods=["POST", "PUT"])
def upload():
    """Length and digest of the body, read piece by piece."""
    digest, length = hashlib.sha256(), 0
    while piece := request.stream.read(65_536):
        digest.update(piece)
        length += len(piece)
    return jsonify(length=length, sha256=digest.hexdigest())


@app.get("/download")
def download():
    """The pattern, as long as asked for."""
    size = request.args.get("n", type=int)
    return Response(pattern(size), mimetype="application/octet-stream", headers={"Content-Length": str(size)})


@app.get("/stream")
def stream():
    """Ten lines from a generator."""
    return Response((f"line {number}\n" for number in range(10)), mimetype="text/x-lines")


@app.get("/events")
def events():
    """Server-sent events; each but the first waits until ``/events/next`` has been asked for it."""
    key, count = request.args["key"], request.args.get("n", 3, type=int)

    def generate():
        for number in range(count):
            if number and not gates.get((key, number), threading.Event).wait(10):
                return
            yield f"id: {number}\ndata: event {number}\n\n"

    return Response(stream_with_context(generate()), mimetype="text/event-stream")


@app.post("/events/next")
def next_event():
    """Let one event go."""
    gates.get((request.args["key"], request.args.get("number", type=int)), threading.Event).set()
    return "", 204


# -- cookies and sessions ----------------------------------------------------------------------------------------------

@app.route("/login", methods=["POST"])
def login():
    """Begin a session."""
    session["name"] = request.form["name"]
    return jsonify(name=session["name"])


@app.get("/whoami")
def whoami():
    """Who the session belongs to."""
    return jsonify(name=session.get("name"))


@app.post("/logout")
def logout():
    """End the session."""
    session.clear()
    return "", 204


@app.get("/cookies")
def cookies():
    """The cookies received, and two new ones."""
    response = jsonify(dict(sorted(request.cookies.items())))
    response.set_cookie("first", "1", httponly=True)
    response.set_cookie("second", "2", path="/cookies", samesite="Lax")
    return response


# -- time, threads and output ------------------------------------------------------------------------------------------

@app.get("/sleep")
def sleep():
    """Take a while."""
    time.sleep(request.args.get("s", type=float))
    return jsonify(slept=True)


@app.get("/barrier")
def barrier():
    """Answer once ``n`` requests with the same key are inside at the same time."""
    count, key = request.args.get("n", type=int), request.args.get("key", "")
    meeting = barriers.get((key, count), lambda: threading.Barrier(count))
    try:
        meeting.wait(10)
    except threading.BrokenBarrierError:
        return jsonify(error="the others did not come"), 503
    return jsonify(thread=threading.current_thread().name)


@app.get("/print")
def say():
    """Print and log something."""
    word = request.args["word"]
    print(f"printed {word}", flush=True)
    logger.info("logged %s", word)
    app.logger.warning("app logged %s", word)
    request.environ["wsgi.errors"].write(f"errors {word}\n")
    return "", 204
