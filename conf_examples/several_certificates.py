"""Several sites on one address, each with a certificate of its own: clients are shown the one that they ask for by SNI.

    gunicorn app:app -c several_certificates.py
"""

import multiprocessing

worker_class = "gunicorn_h2.ThreadWorker"
bind = "0.0.0.0:443"
workers = multiprocessing.cpu_count()
threads = 16

# For clients that ask for none of the names below, or for none at all.
certfile = "/etc/letsencrypt/live/example.org/fullchain.pem"
keyfile = "/etc/letsencrypt/live/example.org/privkey.pem"

# The others: certificate and key, or one file with both. The names are those in the certificates: the very name counts
# more than a wildcard. Each one is renewed like the first: workers look every minute whether a file has changed.
http2_certificates = [
    ("/etc/letsencrypt/live/example.net/fullchain.pem", "/etc/letsencrypt/live/example.net/privkey.pem"),
    "/etc/ssl/example.com/certificate-and-key.pem",
]

# A connection is for the hosts of the certificate that was shown on it; requests for others are answered 421.
http2_check_authority = "certificate"

# An idle connection costs no thread. Seconds.
keepalive = 75
