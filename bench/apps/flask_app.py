"""A Flask application as people write them: a session, a route with a parameter, a template that inherits."""

from __future__ import annotations

from flask import Flask, render_template, session
from jinja2 import DictLoader

from gunicorn_h2.status import StatusMiddleware

BASE = """\
<!doctype html>
<html lang="en">
<head><title>{% block title %}{% endblock %}</title></head>
<body>
<nav><a href="{{ url_for('shelf', topic='http') }}">HTTP</a> <a href="{{ url_for('shelf', topic='tls') }}">TLS</a></nav>
{% block content %}{% endblock %}
<footer>{{ visits }} visits</footer>
</body>
</html>
"""

SHELF = """\
{% extends "base.html" %}
{% block title %}Books on {{ topic }}{% endblock %}
{% block content %}
<h1>Books on {{ topic|upper }}</h1>
<ul>
{%- for book in books %}
  <li class="{{ loop.cycle('odd', 'even') }}"><cite>{{ book.title }}</cite>, {{ book.year }}
    {%- if book.stock %}, {{ book.stock }} in stock{% endif %}</li>
{%- endfor %}
</ul>
{% endblock %}
"""

BOOKS = [{"title": f"Notes on <{number}>", "year": 1990 + number, "stock": number % 4} for number in range(20)]

app = Flask(__name__)
app.secret_key = "for the benchmark only"
app.jinja_loader = DictLoader({"base.html": BASE, "shelf.html": SHELF})


@app.get("/hello")
def hello() -> str:
    """Answer like the plain applications: the probe of every server."""
    return "Hello world!"


@app.get("/shelf/<topic>")
def shelf(topic: str) -> str:
    """Show twenty books."""
    session["visits"] = session.get("visits", 0) + 1
    return render_template("shelf.html", topic=topic, books=BOOKS, visits=session["visits"])


with_status = StatusMiddleware(app)
