"""The routes of the acceptance suite in Quart."""

import hashlib

from quart import Quart, Response, jsonify, redirect, request, session
from quart_cors import cors
from starlette.middleware.gzip import GZipMiddleware

from tests.apps import suite

app = Quart(__name__)
app.secret_key = suite.SECRET
app.config.update(MAX_CONTENT_LENGTH=None, RESPONSE_TIMEOUT=None, BODY_TIMEOUT=None)
cors(app, allow_origin=suite.ORIGIN, allow_methods=["GET", "PUT"], allow_headers=["content-type"], max_age=600,
     allow_credentials=True)
app.asgi_app = GZipMiddleware(app.asgi_app, minimum_size=500)
events = suite.Events()


@app.get("/")
async def index():
    """A greeting."""
    return Response("Hello, world!\n", mimetype="text/plain")


@app.route("/json", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def json_echo():
    """The JSON that was sent."""
    sent = await request.get_json(silent=True)
    return jsonify(method=request.method, sent=sent, query=request.args.to_dict(flat=False), text=suite.CZECH)


@app.get("/api/items")
async def items():
    """A list, open to one other origin."""
    return jsonify(suite.ITEMS)


@app.put("/api/items/<int:item>")
async def put_item(item):
    """Changes nothing."""
    return jsonify(id=item, **await request.get_json())


@app.post("/form")
async def form():
    """Form fields and the digests of uploaded files."""
    sent = await request.files
    files = {name: hashlib.sha256(file.read()).hexdigest() for name, file in sent.items()}
    return jsonify(fields=(await request.form).to_dict(), files=files)


@app.get("/text")
async def text():
    """Enough text to be worth compressing."""
    return Response(suite.TEXT, mimetype="text/plain")


@app.get("/nothing")
async def nothing():
    """204."""
    return "", 204


@app.get("/unchanged")
async def unchanged():
    """304 if the client has the right tag."""
    response = Response("tagged\n")
    response.set_etag("v1")
    return await response.make_conditional(request)


@app.get("/redirect")
async def moved():
    """302."""
    return redirect("/json?from=redirect")


@app.get("/large-headers")
async def large_headers():
    """Many and long response fields."""
    response = jsonify(received=len(request.headers.get("X-Large", "")))
    response.headers.update(suite.LARGE_HEADERS)
    return response


@app.errorhandler(404)
async def not_found(error):
    """404 as JSON."""
    return jsonify(error="not found", path=request.path), 404


@app.errorhandler(500)
async def failed(error):
    """500 as JSON."""
    return jsonify(error="internal error"), 500


@app.get("/boom")
async def boom():
    """Fails."""
    raise RuntimeError("deliberate failure with a secret")


@app.route("/upload", methods=["POST", "PUT"])
async def upload():
    """Length and digest of the body, read piece by piece."""
    counted = suite.Counted()
    async for piece in request.body:
        counted.add(piece)
    return jsonify(counted.result)


@app.get("/download")
async def download():
    """The pattern, as long as asked for."""
    size = request.args.get("n", type=int)
    return Response(suite.pieces(size), mimetype="application/octet-stream", headers={"Content-Length": str(size)})


@app.get("/stream")
async def stream():
    """Ten lines from a generator."""
    return Response(suite.text_lines(), mimetype="text/x-lines")


@app.get("/events")
async def server_sent_events():
    """Server-sent events."""
    sent = suite.server_sent(events, request.args["key"], request.args.get("n", 3, type=int))
    return Response(sent, mimetype="text/event-stream")


@app.post("/events/next")
async def next_event():
    """Let one event go."""
    events.get("next", request.args["key"], request.args.get("number", type=int)).set()
    return "", 204


@app.get("/endless")
async def endless():
    """A response without an end."""
    return Response(suite.without_end(events, request.args["key"]), mimetype="application/octet-stream")


@app.get("/ended")
async def has_ended():
    """204 once the endless response has ended."""
    return "", 204 if await events.wait("ended", request.args["key"]) else 503


@app.post("/login")
async def login():
    """Begin a session."""
    session["name"] = (await request.form)["name"]
    return jsonify(name=session["name"])


@app.get("/whoami")
async def whoami():
    """Who the session belongs to."""
    return jsonify(name=session.get("name"))


@app.post("/logout")
async def logout():
    """End the session."""
    session.clear()
    return "", 204


@app.get("/cookies")
async def cookies():
    """The cookies received, and two new ones."""
    response = jsonify(dict(sorted(request.cookies.items())))
    response.set_cookie("first", "1", httponly=True)
    response.set_cookie("second", "2", path="/cookies", samesite="Lax")
    return response
