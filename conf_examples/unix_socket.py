"""Behind a proxy on the same machine, over a unix socket.

    gunicorn app:app -c unix_socket.py
"""

import os

worker_class = "gunicorn_h2.ThreadWorker"

# The directory's permissions say who may connect; such peers are trusted, whatever forwarded_allow_ips says.
bind = f"unix:{os.environ.get('RUNTIME_DIRECTORY', '/run/app')}/app.sock"

workers = 2
threads = 16

# HTTP/2 without TLS, or HTTP/1.1: whichever the proxy speaks.
http2_cleartext = "both"

# Longer than the proxy keeps idle connections (nginx: 60 seconds), so that it does not send a request, perhaps one that
# cannot be repeated, on a connection that is being closed. Seconds.
keepalive = 75
