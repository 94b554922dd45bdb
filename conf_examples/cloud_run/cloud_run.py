"""Google Cloud Run, with HTTP/2 from end to end (gcloud run deploy --use-http2).

Cloud Run ends TLS and speaks cleartext HTTP/2 to the container, with prior knowledge: its
32 MiB limit on the size of a request is for HTTP/1 only.

    CMD ["gunicorn", "app:app", "-c", "cloud_run.py"]
"""

import os

worker_class = "gunicorn_h2.ThreadWorker"

# Cloud Run says where to listen.
bind = f"0.0.0.0:{os.environ.get('PORT', '8080')}"

# One worker an instance: Cloud Run scales by instances. Threads at least the service's concurrency.
workers = 1
threads = 80

# HTTP/2 without TLS. Gunicorn has this setting since 26.2; here it works with older versions as well.
http2_cleartext = "prior-knowledge"

# Cleartext HTTP/2 is for trusted peers only, and this is the list of them. "*" is right here, and
# almost nowhere else: the platform's front end is the only one who can reach the container, its
# address is not known beforehand, and it sets X-Forwarded-Proto and X-Forwarded-For itself.
forwarded_allow_ips = "*"

# The front end keeps its connections for the next requests: no hurry to close an idle one. Seconds.
keepalive = 600

# A response that makes no progress for this long is reset. Seconds.
timeout = 60

# After SIGTERM an instance has ten seconds. Seconds.
graceful_timeout = 8

# Cloud Run collects what goes to stdout and stderr.
accesslog = "-"

# No socket for gunicornc: there is no home directory for it, and nobody to use it.
control_socket_disable = True
