"""The demo: HTTP/2 on one port, and a second Gunicorn on the next one, to compare HTTP/1.1 with.

gunicorn-h2 makes a certificate; both use it.
"""

import os
import socket
import subprocess
import sys

wsgi_app = "app:app"
bind = "127.0.0.1:8443"
threads = 128
graceful_timeout = 2
control_socket_disable = True


def on_starting(server):
    """Listen for HTTP/1.1 before any worker starts, for the page must know where."""
    host, port = server.cfg.address[0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port + 1 if port else 0), family=family)
    except OSError as error:
        server.log.warning("Port %d for HTTP/1.1 is not to be had (%s): taking another", port + 1, error)
        listener = socket.create_server((host, 0), family=family)
    server.http1_listener = listener
    os.environ["DEMO_HTTP1_PORT"] = str(listener.getsockname()[1])


def when_ready(server):
    """Start the Gunicorn that serves HTTP/1.1 there."""
    listener = server.http1_listener
    command = [sys.executable, "-m", "gunicorn", "-c", "http1.conf.py", "--bind", f"fd://{listener.fileno()}",
               "--certfile", server.cfg.certfile, "--keyfile", server.cfg.keyfile]
    server.http1 = subprocess.Popen(command, pass_fds=[listener.fileno()])
    listener.close()


def on_exit(server):
    """End it as well."""
    server.http1.terminate()
    server.http1.wait()
