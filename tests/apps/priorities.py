"""Responses that compete.

A page asks for a style sheet when its pictures are on their way, and notes when each has arrived. `/filler` and `/held`
are as large as they are asked to be, and state the priority that they are asked to state.
"""

from tests.apps.asgi_app import Call
from tests.apps.wsgi_app import query, visit_gate

SIZE = 150_000
PICTURES = 6
PAGE = """<!doctype html><title>priorities</title><pre id=seen></pre>
<script>
const pictures = Array.from({length: PICTURES}, (_, number) => `/picture${number}.svg`)
function add(element, attributes) { document.head.append(Object.assign(document.createElement(element), attributes)) }
async function show() {
  for (const src of pictures) document.body.append(Object.assign(document.createElement("img"), {src}))
  // A download that is under way means that those of the pictures are, too.
  const reader = (await fetch("/begun", {priority: "low"})).body.getReader()
  await reader.read()
  add("link", {rel: "stylesheet", href: "/style.css"})
}
addEventListener("DOMContentLoaded", show)
addEventListener("load", () => {
  const seen = performance.getEntriesByType("resource").map(entry =>
    `${new URL(entry.name).pathname} ${entry.requestStart} ${entry.responseEnd} ${entry.nextHopProtocol}`)
  document.getElementById("seen").textContent = ["", ...seen].join("\\n")
})
</script>
""".replace("PICTURES", str(PICTURES))


def answer(path):
    """The content type and the body of a response."""
    filler = b"x" * SIZE
    if path == "/":
        return "text/html", PAGE.encode()
    if path.endswith(".svg"):
        return "image/svg+xml", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><!--%b--></svg>" % filler
    if path == "/style.css":
        return "text/css", b"/*%b*/" % filler
    return "text/plain", filler


def filler(fields):
    """The header and the body that a query asks for: `n` octets and, if it names one, a `priority` field."""
    headers = [("Content-Type", "text/plain"), ("Content-Length", fields["n"])]
    if "priority" in fields:
        headers.append(("Priority", fields["priority"]))
    return headers, b"x" * int(fields["n"])


def wsgi(environ, start_response):
    """The WSGI application."""
    if environ["PATH_INFO"] == "/held":
        return wsgi_held(environ, start_response)
    if environ["PATH_INFO"] == "/filler":
        headers, body = filler(query(environ))
    else:
        kind, body = answer(environ["PATH_INFO"])
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def wsgi_held(environ, start_response):
    """Wait at the test's gate; hand over the body; wait again."""
    headers, body = filler(query(environ))
    visit_gate(environ)
    start_response("200 OK", headers)(body)
    visit_gate(environ)
    return []


async def asgi(scope, receive, send):
    """The ASGI application."""
    if scope["type"] != "http":
        return
    call = Call(scope, receive, send)
    if scope["path"] in ("/filler", "/held"):
        headers, body = filler(call.query)
    else:
        kind, body = answer(scope["path"])
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    octets = [(name.lower().encode(), value.encode()) for name, value in headers]
    if scope["path"] == "/held":
        await asgi_held(call, octets, body)
    else:
        await call.start(headers=octets)
        await call.body(body)


async def asgi_held(call, headers, body):
    """Wait at the test's gate; hand over the body; wait again."""
    await call.gate()
    await call.start(headers=headers)
    await call.body(body, True)
    await call.gate()
    await call.body()
