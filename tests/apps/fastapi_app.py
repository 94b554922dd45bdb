"""The routes of the acceptance suite in FastAPI."""

import hashlib

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.sessions import SessionMiddleware

from tests.apps import suite

app = FastAPI()
app.add_middleware(GZipMiddleware, minimum_size=500)
app.add_middleware(SessionMiddleware, secret_key=suite.SECRET)
app.add_middleware(CORSMiddleware, allow_origins=[suite.ORIGIN], allow_methods=["GET", "PUT"], max_age=600,
                   allow_headers=["content-type"], allow_credentials=True)
app.mount("/static", StaticFiles(directory="tests/apps/static"))
events = suite.Events()


@app.api_route("/", methods=["GET", "HEAD"])
async def index():
    """A greeting."""
    return PlainTextResponse("Hello, world!\n")


@app.api_route("/json", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
async def json_echo(request: Request):
    """The JSON that was sent."""
    query = {name: request.query_params.getlist(name) for name in request.query_params}
    sent = await request.json() if await request.body() else None
    return {"method": request.method, "sent": sent, "query": query, "text": suite.CZECH}


@app.get("/api/items")
async def items():
    """A list, open to one other origin."""
    return suite.ITEMS


@app.put("/api/items/{item}")
async def put_item(item: int, name: dict):
    """Changes nothing."""
    return {"id": item, **name}


@app.post("/form")
async def form(request: Request):
    """Form fields and the digests of uploaded files."""
    async with request.form() as sent:
        texts = {name: value for name, value in sent.items() if isinstance(value, str)}
        files = {name: hashlib.sha256(await value.read()).hexdigest() for name, value in sent.items()
                 if not isinstance(value, str)}
    return {"fields": texts, "files": files}


@app.get("/text")
async def text():
    """Enough text to be worth compressing."""
    return PlainTextResponse(suite.TEXT)


@app.get("/nothing", status_code=204)
async def nothing():
    """204."""


@app.get("/unchanged")
async def unchanged(request: Request):
    """304 if the client has the right tag."""
    if request.headers.get("if-none-match") == '"v1"':
        return Response(status_code=304, headers={"ETag": '"v1"'})
    return PlainTextResponse("tagged\n", headers={"ETag": '"v1"'})


@app.get("/redirect")
async def moved():
    """302."""
    return RedirectResponse("/json?from=redirect", 302)


@app.get("/large-headers")
async def large_headers(request: Request):
    """Many and long response fields."""
    return JSONResponse({"received": len(request.headers.get("x-large", ""))}, headers=suite.LARGE_HEADERS)


@app.exception_handler(404)
async def not_found(request: Request, error: HTTPException):
    """404 as JSON."""
    return JSONResponse({"error": "not found", "path": request.url.path}, 404)


@app.exception_handler(Exception)
async def failed(request: Request, error: Exception):
    """500 as JSON."""
    return JSONResponse({"error": "internal error"}, 500)


@app.get("/boom")
async def boom():
    """Fails."""
    raise RuntimeError("deliberate failure with a secret")


@app.api_route("/upload", methods=["POST", "PUT"])
async def upload(request: Request):
    """Length and digest of the body, read piece by piece."""
    counted = suite.Counted()
    async for piece in request.stream():
        counted.add(piece)
    return counted.result


@app.get("/download")
async def download(n: int):
    """The pattern, as long as asked for."""
    return StreamingResponse(suite.pieces(n), media_type="application/octet-stream",
                             headers={"Content-Length": str(n)})


@app.get("/stream")
async def stream():
    """Ten lines from a generator."""
    return StreamingResponse(suite.text_lines(), media_type="text/x-lines")


@app.get("/events")
async def server_sent_events(key: str, n: int = 3):
    """Server-sent events."""
    return StreamingResponse(suite.server_sent(events, key, n), media_type="text/event-stream")


@app.post("/events/next", status_code=204)
async def next_event(key: str, number: int):
    """Let one event go."""
    events.get("next", key, number).set()


@app.get("/endless")
async def endless(key: str):
    """A response without an end."""
    return StreamingResponse(suite.without_end(events, key), media_type="application/octet-stream")


@app.get("/ended")
async def has_ended(key: str):
    """204 once the endless response has ended."""
    return Response(status_code=204 if await events.wait("ended", key) else 503)


@app.post("/login")
async def login(request: Request, name: str = Form()):
    """Begin a session."""
    request.session["name"] = name
    return {"name": name}


@app.get("/whoami")
async def whoami(request: Request):
    """Who the session belongs to."""
    return {"name": request.session.get("name")}


@app.post("/logout", status_code=204)
async def logout(request: Request):
    """End the session."""
    request.session.clear()


@app.get("/cookies")
async def cookies(request: Request):
    """The cookies received, and two new ones."""
    response = JSONResponse(dict(sorted(request.cookies.items())))
    response.set_cookie("first", "1", httponly=True, samesite=None)
    response.set_cookie("second", "2", path="/cookies", samesite="lax")
    return response
