"""The Flask application with what the acceptance suite needs beyond it."""

import threading

from flask import Response, request

from tests.apps.flask_app import PATTERN, app, gates

__all__ = ["app"]


@app.get("/endless")
def endless():
    """A response without an end; when the server closes it, that is noted."""
    ended = gates.get(("ended", request.args["key"]), threading.Event)

    def generate():
        try:
            while True:
                yield PATTERN
        finally:
            ended.set()

    return Response(generate(), mimetype="application/octet-stream")


@app.get("/ended")
def has_ended():
    """204 once the endless response of that key has ended."""
    ended = gates.get(("ended", request.args["key"]), threading.Event)
    return "", 204 if ended.wait(10) else 503
