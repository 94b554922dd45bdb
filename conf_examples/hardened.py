"""Direct TLS on the public internet, with little room for hostile clients: tls.py, and limits.

    gunicorn app:app -c hardened.py

systemd/app.service starts it as a user without rights, with the sockets of systemd/app.socket.
"""

import multiprocessing
import ssl

worker_class = "gunicorn_h2.ThreadWorker"
bind = "0.0.0.0:443"
workers = multiprocessing.cpu_count()
threads = 16

# The layout of Let's Encrypt's client: links to the newest certificate, which is taken up within a minute.
# Its user must be able to read the key: chgrp and chmod g+rx on live/ and archive/, chmod g+r on the key.
certfile = "/etc/letsencrypt/live/example.org/fullchain.pem"
keyfile = "/etc/letsencrypt/live/example.org/privkey.pem"

# Nobody stands before this server: no X-Forwarded-* field is believed, whoever sends it.
forwarded_allow_ips = ""

# Connections of a worker, and those of one address among them. Beyond the first number idle ones make room. The second
# one is for a site without many users behind one address (a company's, a mobile network's).
worker_connections = 1000
http2_max_connections_per_ip = 100

# Requests for hosts that the certificate does not cover are answered 421.
http2_check_authority = "certificate"

# A request's head: octets of the target, fields, octets of a field, octets of all fields.
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
http2_max_header_list_size = 32 * 1024

# Seconds: for the handshake and the preface, for a field block, for any progress of a stream.
http2_handshake_timeout = 5
http2_header_timeout = 5
timeout = 30

# Octets a second that a client must send of a body, and take of a response.
http2_min_body_rate = 1024
http2_min_read_rate = 1024

# Octets that responses may occupy on the disk for clients that read slowly, for each worker.
http2_worker_spool_size = 256 * 1024 * 1024

# Leaks of the application do not add up: a worker is replaced after so many requests, and none is lost.
max_requests = 100_000
max_requests_jitter = 10_000

keepalive = 75
graceful_timeout = 30

# No socket for gunicornc: there is no home directory for it, and nobody to use it.
control_socket_disable = True


def ssl_context(conf, default_ssl_context_factory):
    """TLS 1.3 alone, and no early data (Python's ssl has none)."""
    context = default_ssl_context_factory()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
