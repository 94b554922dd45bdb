"""Behind a proxy on another machine, with TLS between them: HTTP/2 is agreed on by ALPN.

HAProxy can (server app1 10.0.0.11:8443 ssl verify required ca-file ... alpn h2), Envoy and Caddy as well.

    gunicorn app:app -c behind_proxy_tls.py
"""

worker_class = "gunicorn_h2.ThreadWorker"
bind = "0.0.0.0:8443"

workers = 2
threads = 16

# A certificate of your own authority will do: the proxy checks it, and shows it to nobody.
certfile = "/etc/ssl/internal/app.pem"
keyfile = "/etc/ssl/internal/app.key"

# What ALPN offers: HTTP/2 alone. A health check that does not know it is served over HTTP/1.1 all the same.
http_protocols = "h2"

# The proxy, whose word on the client is believed (X-Forwarded-Proto). With TLS, others may connect and speak HTTP/2.
forwarded_allow_ips = "10.0.0.10"

# Many clients on few connections. Streams, octets.
http2_max_concurrent_streams = 250
http2_connection_window_size = 4 * 1024 * 1024

# Longer than the proxy keeps idle connections. Seconds.
keepalive = 120
