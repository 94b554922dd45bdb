"""Applications with WebSockets: flask-sock's for WSGI, which know nothing of HTTP/2, and the same for ASGI."""

import asyncio
import threading

from flask import Flask, request
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)
app.config["SOCK_SERVER_OPTIONS"] = {"subprotocols": ["chat"]}
ENDED = {}
"""How the sockets of a key have ended."""
_news = threading.Condition()

PAGE = """<!doctype html><body><pre id="out"></pre><script>
const out = document.getElementById("out"), say = line => out.textContent += line + "\\n";
const key = location.search.slice(1), large = "x".repeat(1048576);
// Until it is there, the page is not complete.
document.body.append(Object.assign(new Image(), {src: `/ended/${key}`}));
const socket = new WebSocket(`wss://${location.host}/echo`, ["chat"]);
socket.onopen = () => { say(`open ${socket.protocol}`); socket.send("hello"); };
socket.onmessage = event => {
  if (event.data === "hello") { say("hello"); socket.send(large); }
  else if (event.data === large) { say("large"); socket.send("peer"); }
  else { say(`socket of ${event.data}`); socket.close(3001, "enough"); }
};
socket.onclose = async event => {
  say(`closed ${event.code} ${event.wasClean}`);
  say(`page by ${performance.getEntriesByType("navigation")[0].nextHopProtocol}`);
  say(`page of ${await (await fetch("/peer")).text()}`);
  await fetch(`/end/${key}`);
};
socket.onerror = () => say("error");
</script>
"""


@app.get("/page")
def page():
    """A page that tells what becomes of its WebSocket."""
    return PAGE


@app.get("/hello")
def hello():
    """Something to ask for beside WebSockets."""
    return "Hello, world!\n"


@app.get("/peer")
def peer():
    """The port of the client, which tells connections apart."""
    return request.environ["REMOTE_PORT"]


@app.get("/end/<key>")
def end(key):
    """Say that what has a key has ended."""
    with _news:
        ENDED[key] = "ended"
        _news.notify_all()
    return ""


@sock.route("/echo")
def echo(ws):
    """Send back what comes. A few words ask for something else."""
    while True:
        message = ws.receive()
        if message == "close":
            ws.close(3000, "as you wish")
            return
        if message == "fail":
            raise LookupError("secret")
        if message == "protocol":
            message = "h2" if "gunicorn.http2.stream_id" in request.environ else "http/1"
        if message == "peer":
            message = request.environ["REMOTE_PORT"]
        ws.send(message)


@sock.route("/flood")
def flood(ws):
    """Send a good deal, whether or not anyone reads."""
    for _ in range(100):
        ws.send(bytes(100_000))
    ws.receive()


@sock.route("/wait/<key>")
def wait(ws, key):
    """Wait for the end, and remember it."""
    try:
        ws.send("ready")
        ws.receive()
    finally:
        with _news:
            ENDED[key] = str(ws.close_reason)
            _news.notify_all()


@app.get("/ended/<key>")
def ended(key):
    """Say how a socket of `/wait` has ended, once it has."""
    with _news:
        _news.wait_for(lambda: key in ENDED, 10)
        return ENDED.get(key, "")


@app.before_request
def denied():
    """Deny what asks for it."""
    return ("no", 403, {"X-Why": "denied"}) if request.path == "/denied" else None


async def asgi(scope, receive, send):
    """As `app`, for ASGI."""
    if scope["type"] == "websocket":
        await _sockets(scope, receive, send)
    elif scope["type"] == "http":
        path, status = scope["path"], 200
        if path.startswith("/ended/"):
            body = (await _ended(path.removeprefix("/ended/"))).encode()
        elif path.startswith("/end/"):
            ENDED[path.removeprefix("/end/")] = "ended"
            body = b""
        else:
            body = {"/page": PAGE, "/peer": str(scope["client"][1])}.get(path, "Hello, world!\n").encode()
        headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _ended(key):
    for _ in range(1_000):
        if key in ENDED:
            break
        await asyncio.sleep(0.01)
    return ENDED.get(key, "")


async def _sockets(scope, receive, send):
    await receive()
    path = scope["path"]
    if path == "/denied":
        await send({"type": "websocket.http.response.start", "status": 403, "headers": [(b"x-why", b"denied")]})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        return
    await send({"type": "websocket.accept", "subprotocol": "chat" if "chat" in scope["subprotocols"] else None})
    if path == "/flood":
        for _ in range(100):
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
        await receive()
    elif path == "/echo":
        await _echo(str(scope["client"][1]), receive, send)
    else:
        await send({"type": "websocket.send", "text": "ready"})
        message = await receive()
        ENDED[path.removeprefix("/wait/")] = str(message.get("code"))


async def _echo(peer, receive, send):
    while (message := await receive())["type"] != "websocket.disconnect":
        text = message.get("text")
        if text == "close":
            await send({"type": "websocket.close", "code": 3000, "reason": "as you wish"})
            return
        if text == "fail":
            raise LookupError("secret")
        if text == "protocol":
            message["text"] = "h2"
        if text == "peer":
            message["text"] = peer
        await send({**message, "type": "websocket.send"})
