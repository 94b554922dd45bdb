"""Behind a load balancer that passes TLS connections on as they are: an AWS Network Load Balancer, HAProxy in mode tcp.

The client's address comes by the PROXY protocol, before TLS:

    gunicorn app:app -c proxy_protocol.py

HAProxy's side is haproxy_tcp.cfg. On AWS it is a target group for TCP with proxy_protocol_v2.enabled, and client IP
preservation off.
"""

worker_class = "gunicorn_h2.ThreadWorker"
workers = 2
threads = 16

# A port that only the balancer can reach.
bind = "0.0.0.0:8443"
certfile = "/etc/ssl/example.org/fullchain.pem"
keyfile = "/etc/ssl/example.org/privkey.pem"

# "v1" (HAProxy's send-proxy), "v2", or "auto".
proxy_protocol = "v2"

# The balancer: who may say whose a connection is. Its networks, if it has more than one address.
proxy_allow_ips = "10.0.0.0/24"

# Nobody's forwarding fields are believed: what arrives is what the clients have sent.
forwarded_allow_ips = ""

# The clients' own connections: an idle one costs no thread. Seconds.
keepalive = 75

# Limits by address count the clients that the balancer names.
http2_max_connections_per_ip = 100
