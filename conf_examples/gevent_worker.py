"""WSGI with a greenlet for each request, for applications that wait a lot: pip install 'gunicorn-h2[gevent]'.

    gunicorn app:app -c gevent_worker.py
"""

worker_class = "gunicorn_h2.GeventWorker"

# Connections of a worker, and requests on each of them.
worker_connections = 1000
http2_max_concurrent_streams = 100

# Gunicorn's default is 2: clients save a handshake. Seconds.
keepalive = 75

certfile = "/etc/ssl/example.org/fullchain.pem"
keyfile = "/etc/ssl/example.org/privkey.pem"
