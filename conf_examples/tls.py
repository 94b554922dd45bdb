"""A server of one's own on the public internet, TLS included.

    gunicorn app:app -c tls.py
"""

import multiprocessing
import ssl

worker_class = "gunicorn_h2.ThreadWorker"
bind = "0.0.0.0:443"

# A worker is a process: one a core uses the machine. Threads are for requests that wait.
workers = multiprocessing.cpu_count()
threads = 16

# As certbot writes them. Workers look every minute whether they have changed; those that run as a user who may not
# read the key say so in the log, and need a SIGHUP: certbot renew --deploy-hook "systemctl reload app".
certfile = "/etc/letsencrypt/live/example.org/fullchain.pem"
keyfile = "/etc/letsencrypt/live/example.org/privkey.pem"

# What ALPN offers, the preferred one first. This is the default of the worker class;
# "h1" alone switches HTTP/2 off, "h2" alone offers nothing else.
http_protocols = "h2,h1"

# An idle connection costs no thread, so it may stay: clients save a handshake. Seconds.
keepalive = 75

# A response that makes no progress for this long is reset. Seconds.
timeout = 30

# How long running requests may take to end after SIGTERM or SIGHUP. Seconds.
graceful_timeout = 30


def ssl_context(conf, default_ssl_context_factory):
    """Change the TLS context: it is built once per worker. TLS 1.2 is the least; here TLS 1.3 is."""
    context = default_ssl_context_factory()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
