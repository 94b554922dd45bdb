"""The applications that the servers of the benchmark run: the same paths and octets for WSGI and ASGI."""
