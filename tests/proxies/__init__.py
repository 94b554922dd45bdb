"""Real proxies before and behind a worker, and Gunicorn's own HTTP/1, as witnesses of what a request is."""
