"""A Flask application and a gRPC service on one port.

    python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. library.proto
    gunicorn-h2 app:app --threads 16 --bind localhost:8443
"""

import threading

import grpc
import library_pb2
import library_pb2_grpc
from flask import Flask, abort, request
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gunicorn_h2.grpc import GrpcWSGI

app = Flask(__name__)
books = {"Flatland": 1884, "The Time Machine": 1895, "We": 1924}
lock = threading.Lock()


@app.get("/")
def shelf():
    """All books, as a page."""
    return "<!doctype html><title>Books</title>" + "".join(
        f"<p>{title}, {year}\n" for title, year in sorted(books.items()))


@app.post("/books")
def add():
    """Put one book on the shelf, from a form."""
    year = request.form.get("year", type=int)
    if year is None:
        abort(400)
    with lock:
        books[request.form["title"]] = year
    return "", 204


class Library(library_pb2_grpc.LibraryServicer):
    """The same books, by gRPC."""

    def Find(self, request, context):
        """See library.proto."""
        if request.words not in books:
            context.abort(grpc.StatusCode.NOT_FOUND, f"there is no book {request.words!r}")
        return library_pb2.Book(title=request.words, year=books[request.words])

    def Search(self, request, context):
        """See library.proto."""
        for title, year in sorted(books.items()):
            if request.words.lower() in title.lower():
                yield library_pb2.Book(title=title, year=year)

    def Add(self, request_iterator, context):
        """See library.proto."""
        for book in request_iterator:
            with lock:
                books[book.title] = book.year
        return library_pb2.Shelf(books=len(books))

    def Talk(self, request_iterator, context):
        """See library.proto."""
        for line in request_iterator:
            yield library_pb2.Line(text=f"You said: {line.text}. Quiet, please!")


# Requests of gRPC go to the services, all others to Flask.
app.wsgi_app = services = GrpcWSGI(app.wsgi_app)
library_pb2_grpc.add_LibraryServicer_to_server(Library(), services)
health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), services)
NAMES = [library_pb2.DESCRIPTOR.services_by_name["Library"].full_name, health.SERVICE_NAME, reflection.SERVICE_NAME]
reflection.enable_server_reflection(NAMES, services)
