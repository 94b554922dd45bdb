"""The side of HTTP/1.1: Gunicorn's own worker, with as many threads as in gunicorn.conf.py, which starts it."""

wsgi_app = "app:http1"
worker_class = "gthread"
threads = 128
keepalive = 60
graceful_timeout = 2
loglevel = "warning"
control_socket_disable = True
