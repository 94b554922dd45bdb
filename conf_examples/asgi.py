"""ASGI: FastAPI, Starlette, Quart, Django's asgi.py.

    gunicorn app:app -c asgi.py
"""

worker_class = "gunicorn_h2.ASGIWorker"

# Gunicorn's choice of the event loop: uvloop where it is installed.
asgi_loop = "auto"

# Connections of a worker; a task for each request on them.
worker_connections = 1000

# Gunicorn's default is 2: clients save a handshake. Seconds.
keepalive = 75

certfile = "/etc/ssl/example.org/fullchain.pem"
keyfile = "/etc/ssl/example.org/privkey.pem"
