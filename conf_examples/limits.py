"""Every HTTP/2 setting with its default: a place to start from when one of them has to change.

A misspelt http2_* name, or a value out of range, stops the start with a message.

    gunicorn app:app -c limits.py
"""

worker_class = "gunicorn_h2.ThreadWorker"
threads = 16
certfile = "/etc/ssl/example.org/fullchain.pem"
keyfile = "/etc/ssl/example.org/privkey.pem"

# What ALPN offers, the preferred one first.
http_protocols = "h2,h1"

# HTTP/2 without TLS: off, prior-knowledge, upgrade or both. It has no effect beside a certificate.
http2_cleartext = "off"

# The header codec: our own (fast, which auto means), or hpack with the h2 library as a referee (h2).
http2_engine = "auto"

# WebSocket over HTTP/2: on, off, or auto, which for an ASGIWorker asks whether the extra `websocket` is installed. And
# the largest message that an ASGIWorker accepts, in octets; libraries for WSGI applications have limits of their own.
http2_websocket = "auto"
http2_websocket_max_message_size = 16_777_216

# Streams a client may have open at once on a connection; a reset one counts until its application call has returned.
http2_max_concurrent_streams = 100

# Initial receive windows, in octets. A stream's limits how much of a request body may be in flight or unread;
# the connection's limits how much of all bodies may be in flight.
http2_initial_window_size = 65_535
http2_connection_window_size = 1_048_576

# A client can upload at most one window in a round trip. So windows grow as applications read: on one connection
# up to the first size, for all streams of a worker by the second one in total. Clients can make a worker buffer
# that much, and the initial window of each open stream.
http2_max_window_size = 16_777_216
http2_worker_window_size = 268_435_456

# The largest frame payload accepted, in octets.
http2_max_frame_size = 16_384

# The largest field section accepted, decoded, in octets.
http2_max_header_list_size = 65_536

# Response data queued for one stream before the application must wait, in octets.
http2_stream_buffer_size = 131_072

# What responses may have in a worker's temporary file, in octets, instead of a waiting thread: one, and all of them.
http2_response_spool_size = 67_108_864
http2_worker_spool_size = 1_073_741_824

# Response data queued in a worker's memory, in octets, beyond which what waits for clients goes to that file.
http2_worker_buffer_size = 16_777_216

# Octets a second that a client must take of the responses that wait for it, on average over `timeout` seconds.
http2_min_read_rate = 240

# How much of a request's body to wait for before the application is called, in octets; no more than a stream's initial
# window. A body of declared length that fits costs no thread until it is complete.
http2_request_buffer_size = 65_535

# The rate at which a client must send a body of declared length, in octets a second, on average over `timeout` seconds.
http2_min_body_rate = 240

# Threads that wait for their clients, to send more of a body or to take more of a response, and do not count among the
# `threads` of a ThreadWorker: others take their places.
http2_max_waiting_threads = 256

# Time limits, in seconds: the TLS handshake and the client's preface; a field block; the steps of a graceful shutdown.
http2_handshake_timeout = 10
http2_header_timeout = 10
http2_drain_timeout = 1

# A client that has been silent for so many seconds is sent a PING (0: never), and has so many to answer it: one that
# has vanished is noticed. Make it less for event streams, and others that may be silent for long.
http2_keepalive_interval = 7_200
http2_keepalive_timeout = 20

# A connection that is so many seconds old (give or take a tenth), or has had so many requests, is shut down gracefully;
# 0: no limit. What it has open goes on; its client opens another one.
http2_max_connection_age = 3_600
http2_max_requests_per_connection = 0

# How often a worker looks whether the files of its certificates have changed, in seconds; 0: never. And certificates
# besides certfile: pairs (certificate, key), of which a client is shown the one that its SNI names.
http2_certificate_reload = 60
http2_certificates = []

# Under TLS, whether requests for hosts that the connection's certificate does not cover are answered 421 (certificate).
http2_check_authority = "off"

# Budgets for one burst: of stream resets, and of frames that carry no request and no data.
http2_reset_budget = 200
http2_control_budget = 1_000

# DATA frames of one octet in a second; those of 16 octets and more are free, and others cost in proportion.
http2_small_data_budget = 10_000

# Connections that one address (of IPv6, one /64 network) may have open to a worker; 0: no limit. Trusted proxies, those
# in forwarded_allow_ips, may have any number.
http2_max_connections_per_ip = 0

# For development only: the file for the secrets of all TLS connections, by which Wireshark decrypts them.
http2_keylog = None

# For development only: the file for the frames of all connections, in words.
http2_trace = None
