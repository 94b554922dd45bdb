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

# What reads and writes frames.
http2_engine = "auto"

# Streams a client may have open at once on a connection; a reset one counts until its application call has returned.
http2_max_concurrent_streams = 100

# Receive windows at the beginning, in octets. A stream's is how much of a request body may be under way
# or held, unread by the application; the connection's is how much of all bodies may be under way.
http2_initial_window_size = 65_535
http2_connection_window_size = 1_048_576

# A distant client uploads a window in a round trip at most. So windows grow as applications read: on one
# connection to the first size, for all streams of a worker by the second one. In memory, a worker can be
# made to hold that, and the initial window of each stream that is open.
http2_max_window_size = 16_777_216
http2_worker_window_size = 268_435_456

# The largest frame payload accepted, in octets.
http2_max_frame_size = 16_384

# The largest header section accepted, decoded, in octets.
http2_max_header_list_size = 65_536

# Response data queued for one stream before the application has to wait, in octets.
http2_stream_buffer_size = 65_536

# Deadlines, in seconds: the TLS handshake and the client's preface; a header block; the steps of a graceful shutdown.
http2_handshake_timeout = 10
http2_header_timeout = 10
http2_drain_timeout = 1

# Budgets: resets, and frames that carry no request and no data, that one burst may have.
http2_reset_budget = 200
http2_control_budget = 1_000
