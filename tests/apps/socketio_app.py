"""Flask-SocketIO as its documentation has it; the environment says which threads it is to use."""

import os

from flask import Flask
from flask_socketio import SocketIO, emit

app = Flask(__name__)
socketio = SocketIO(app, async_mode=os.environ.get("ASYNC_MODE"), ping_interval=1, ping_timeout=30)


@app.get("/hello")
def hello():
    """Something to ask for beside the events."""
    return "Hello, world!\n"


@socketio.on("say")
def say(text):
    """Answer with an event, and to whoever wants to know that it came."""
    emit("said", text.upper())
    return len(text)


@socketio.on("later")
def later(text):
    """Answer from a task of the library's own."""
    socketio.start_background_task(socketio.emit, "said", text)
