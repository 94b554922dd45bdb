"""The least that serves HTTP/2: a worker class, threads, a certificate.

    gunicorn app:app -c minimal.py
"""

worker_class = "gunicorn_h2.ThreadWorker"

# Requests that run at the same time, whatever the number of connections.
threads = 16

# Browsers speak HTTP/2 over TLS only. Clients without HTTP/2 get HTTP/1.1 on the same port.
certfile = "/etc/ssl/example.org/fullchain.pem"
keyfile = "/etc/ssl/example.org/privkey.pem"
