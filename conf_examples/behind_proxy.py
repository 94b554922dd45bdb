"""Behind a proxy on the same machine that ends TLS and speaks HTTP/2 to us.

Envoy (http2_protocol_options), Caddy (reverse_proxy h2c://127.0.0.1:8000) and HAProxy
(server app 127.0.0.1:8000 proto h2) can. With one that speaks HTTP/1.1 to its servers, choose
"both" below: HTTP/1.1 is then no mistake.

    gunicorn app:app -c behind_proxy.py
"""

worker_class = "gunicorn_h2.ThreadWorker"

# Never a public address: without TLS, whoever can connect can read and claim anything.
bind = "127.0.0.1:8000"

workers = 2
threads = 16

# "prior-knowledge": the proxy opens with HTTP/2 at once. "both": it may start with HTTP/1.1 as well, and so may its
# health checks, which are HTTP/1.1 as a rule.
http2_cleartext = "prior-knowledge"

# Who the proxy is: the only peers who may speak HTTP/2 here, and whose forwarded headers are believed.
forwarded_allow_ips = "127.0.0.1,::1"

# A proxy multiplexes many clients over few connections: allow it more streams on each, and a
# larger window for all of their uploads together. Streams, octets.
http2_max_concurrent_streams = 250
http2_connection_window_size = 4 * 1024 * 1024

# Longer than the proxy keeps idle connections, so that it is never the proxy that finds one closed. Seconds.
keepalive = 120
