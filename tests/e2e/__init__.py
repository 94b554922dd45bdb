"""End-to-end tests: real Gunicorn processes, real sockets and clients that others wrote."""
