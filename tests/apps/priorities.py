"""A page whose pictures are on their way when it asks for a style sheet; it notes when each has arrived."""

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


def wsgi(environ, start_response):
    """The WSGI application."""
    kind, body = answer(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    """The ASGI application."""
    if scope["type"] == "http":
        kind, body = answer(scope["path"])
        headers = [(b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
